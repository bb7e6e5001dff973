/* Programs that misuse the heap, one a name: `attacks NAME`. `attacks` lists them.
 *
 * Each calls `done()` right after the misuse. What ends the process before stopped the
 * misuse at once; what ends it in the work that follows stopped it later. A program
 * that survives returns 0, or 10 when the misuse gave it nothing but zeroes.
 *
 * Compiled without optimisation, because all of this is undefined. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SMALL = 96, RUN = 100000, BIG = 3 << 20, MANY = 600, ZEROES = 10 };

static void done(void) { (void)!write(1, "done\n", 5); }

/* Lets every block of `size` that is free come back, several times; few big ones, or the
 * heap gives their memory back to the system meanwhile, and with it what was written. */
static void work(size_t size) {
    static char *blocks[MANY];
    int many = size > 4096 ? 12 : MANY;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < many; i++) blocks[i] = malloc(size);
        for (int i = 0; i < many; i++) free(blocks[i]);
    }
}

static char *get(size_t size) {
    char *block = malloc(size);
    memset(block, 'x', size);
    return block;
}

/* Frees `count` other blocks, so that the last one freed is another. */
static void free_others(int count) {
    static char *blocks[MANY];
    for (int i = 0; i < count; i++) blocks[i] = malloc(SMALL);
    for (int i = 0; i < count; i++) free(blocks[i]);
}

static void *free_it(void *block) {
    free(block);
    return NULL;
}

static void on_a_thread(void *(*run)(void *), void *argument) {
    pthread_t thread;
    pthread_create(&thread, NULL, run, argument);
    pthread_join(thread, NULL);
}

static int is_zero(const char *block, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (block[i]) return 0;
    return 1;
}

/* Freed, and then: as the name of the state says. */
static char *just_freed(void) { char *p = get(SMALL); free(p); return p; }
static char *in_magazine(void) {
    char *others[12], *p = get(SMALL);
    for (int i = 0; i < 12; i++) others[i] = malloc(SMALL);
    free(p);
    for (int i = 0; i < 12; i++) free(others[i]);
    return p;
}
static char *flushed(void) {
    char *others[MANY], *p;
    for (int i = 0; i < MANY; i++) others[i] = malloc(SMALL);
    p = get(SMALL);
    char *pin = malloc(SMALL);
    free(p);
    for (int i = 0; i < MANY; i++) free(others[i]);
    (void)pin;
    return p;
}
static char *retired(void) {
    char *others[MANY], *p;
    for (int i = 0; i < MANY; i++) others[i] = malloc(SMALL);
    p = get(SMALL);
    free(p);
    for (int i = 0; i < MANY; i++) free(others[i]);
    malloc_trim(0);
    return p;
}
static char *on_other_thread(void) { char *p = get(SMALL); on_a_thread(free_it, p); return p; }
static char *moved_by_realloc(void) {
    char *p = get(SMALL);
    (void)!realloc(p, 10 * SMALL);
    return p;
}
static char *freed_run(void) { char *p = get(RUN); free(p); return p; }
static char *freed_big(void) { char *p = get(BIG); free(p); return p; }
static char *freed_32k(void) { char *p = get(32768); free(p); return p; }
static char *freed_aligned(void) { char *p = memalign(64, SMALL); free(p); return p; }
static char *freed_empty(void) { char *p = malloc(0); free(p); return p; }
static char *freed_calloc(void) { char *p = calloc(1, SMALL); free(p); return p; }

static int free_again(char *p, size_t size) { free(p); done(); work(size); return 0; }
static int read_again(char *p) {
    int zero = is_zero(p, 16);
    done();
    return zero ? ZEROES : 0;
}
static int write_again(char *p, size_t size) { p[8] = 'y'; done(); work(size); return 0; }
static int resize_again(char *p) { (void)!realloc(p, 2 * SMALL); done(); work(SMALL); malloc_trim(0); return 0; }

#define DOUBLE(state, size) static int double_##state(void) { return free_again(state(), size); }
DOUBLE(just_freed, SMALL)
DOUBLE(in_magazine, SMALL)
DOUBLE(flushed, SMALL)
DOUBLE(retired, SMALL)
DOUBLE(on_other_thread, SMALL)
DOUBLE(moved_by_realloc, SMALL)
DOUBLE(freed_run, RUN)
DOUBLE(freed_big, SMALL)
DOUBLE(freed_32k, 32768)
DOUBLE(freed_aligned, SMALL)
DOUBLE(freed_empty, 1)
DOUBLE(freed_calloc, SMALL)

static int double_on_two_threads(void) {
    char *p = get(SMALL);
    on_a_thread(free_it, p);
    on_a_thread(free_it, p);
    done();
    work(SMALL);
    return 0;
}
/* The second free hits whoever has the block by then. */
static int double_after_reuse(void) {
    char *p = get(SMALL);
    free(p);
    char *other = get(SMALL);
    free(p);
    done();
    work(SMALL);
    free(other);
    work(SMALL);
    return 0;
}
static int double_run_after_reuse(void) {
    char *p = get(RUN);
    free(p);
    char *other = get(RUN);
    free(p);
    done();
    free(other);
    return 0;
}

#define READ(state) static int read_##state(void) { return read_again(state()); }
READ(just_freed)
READ(in_magazine)
READ(flushed)
READ(retired)
READ(on_other_thread)
READ(moved_by_realloc)
READ(freed_run)
READ(freed_big)
READ(freed_32k)

#define WRITE(state, size) static int write_##state(void) { return write_again(state(), size); }
WRITE(just_freed, SMALL)
WRITE(in_magazine, SMALL)
WRITE(flushed, SMALL)
WRITE(retired, SMALL)
WRITE(on_other_thread, SMALL)
WRITE(moved_by_realloc, SMALL)
WRITE(freed_run, RUN)
WRITE(freed_big, SMALL)
WRITE(freed_32k, 32768)

static int write_behind_first_kib(void) {
    char *p = get(8192);
    free(p);
    p[5000] = 'y';
    done();
    work(8192);
    return 0;
}

#define RESIZE(state) static int realloc_##state(void) { return resize_again(state()); }
RESIZE(just_freed)
RESIZE(in_magazine)
RESIZE(flushed)
RESIZE(freed_run)

static int free_pointer(char *p) { free(p); done(); work(SMALL); malloc_trim(0); return 0; }
static int free_middle(void) { return free_pointer(get(SMALL) + 32); }
static int free_middle_unaligned(void) { return free_pointer(get(SMALL) + 8); }
static int free_middle_of_run(void) { return free_pointer(get(RUN) + 4096); }
static int free_middle_of_big(void) { return free_pointer(get(BIG) + 4096); }
static int free_middle_of_32k(void) { return free_pointer(get(32768) + 4096); }
static int free_one_past_the_end(void) {
    /* The neighbour may be in use: that is a free of somebody else's block. */
    char *p = get(SMALL);
    return free_pointer(p + malloc_usable_size(p) - 16);
}
static int free_stack(void) { char local[64]; return free_pointer(local + 16); }
static int free_static(void) { static char bytes[64]; return free_pointer(bytes + 16); }
static int free_code(void) { return free_pointer((char *)free_code); }
static int free_mapping(void) {
    return free_pointer(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}
static int free_number(void) { return free_pointer((char *)0x123450); }
static int free_metadata(void) {
    char *p = get(SMALL);
    return free_pointer((char *)((size_t)p & ~(size_t)((4 << 20) - 1)) + 4096);
}
static int realloc_middle(void) { return resize_again(get(SMALL) + 32); }
static int realloc_stack(void) { char local[64]; return resize_again(local + 16); }

/* Of many blocks, one for which the address `at` bytes from its start lies in another of
 * them, if there is one: so that nothing else is hit. */
static char *neighboured(size_t size, long at) {
    static char *blocks[64];
    for (int i = 0; i < 64; i++) blocks[i] = get(size);
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++) {
            char *out = blocks[i] + at;
            if (i != j && out >= blocks[j] && out < blocks[j] + size) return blocks[i];
        }
    return blocks[0];
}
static int write_out(size_t size, long at) {
    char *p = neighboured(size, at);
    p[at] = 'y';
    done();
    free(p);
    work(size);
    return 0;
}
static int over_by_one(void) { return write_out(SMALL, SMALL); }
static int over_by_one_of_20(void) { return write_out(20, 20); }
static int over_by_64(void) { return write_out(SMALL, SMALL + 64); }
static int over_by_3000(void) { return write_out(SMALL, SMALL + 3000); }
static int over_of_4k(void) { return write_out(4096, 4096); }
static int over_of_run(void) {
    char *p = neighboured(RUN, malloc_usable_size(get(RUN)));
    p[malloc_usable_size(p)] = 'y';
    done();
    free(p);
    return 0;
}
static int under_by_one(void) { return write_out(SMALL, -1); }
static int under_by_5000(void) { return write_out(SMALL, -5000); }
static int read_over_by_64(void) {
    char *p = neighboured(SMALL, SMALL + 64);
    volatile char byte = p[SMALL + 64];
    (void)byte;
    done();
    return 0;
}

/* What another had in a block is found in a new one. */
static int read_new_block(void) {
    char *p = get(SMALL);
    free(p);
    done();
    for (int i = 0; i < 4 * MANY; i++) {
        char *q = malloc(SMALL);
        for (int at = 0; at < SMALL; at++)
            if (q[at] == 'x') return 0;
    }
    return ZEROES;
}
/* The next allocation gets the block: what an attacker counts on. */
static int reuse_at_once(void) {
    char *p = get(SMALL);
    free(p);
    char *q = malloc(SMALL);
    done();
    return q == p ? 0 : ZEROES;
}

#define ENTRY(name) { #name, name }
static const struct { const char *name; int (*run)(void); } ATTACKS[] = {
    ENTRY(double_just_freed), ENTRY(double_in_magazine), ENTRY(double_flushed),
    ENTRY(double_retired), ENTRY(double_on_other_thread), ENTRY(double_on_two_threads),
    ENTRY(double_moved_by_realloc), ENTRY(double_after_reuse), ENTRY(double_freed_empty),
    ENTRY(double_freed_calloc), ENTRY(double_freed_aligned), ENTRY(double_freed_32k),
    ENTRY(double_freed_run), ENTRY(double_run_after_reuse), ENTRY(double_freed_big),
    ENTRY(free_middle), ENTRY(free_middle_unaligned), ENTRY(free_one_past_the_end),
    ENTRY(free_middle_of_32k), ENTRY(free_middle_of_run), ENTRY(free_middle_of_big),
    ENTRY(free_stack), ENTRY(free_static), ENTRY(free_code), ENTRY(free_mapping),
    ENTRY(free_number), ENTRY(free_metadata),
    ENTRY(realloc_just_freed), ENTRY(realloc_in_magazine), ENTRY(realloc_flushed),
    ENTRY(realloc_freed_run), ENTRY(realloc_middle), ENTRY(realloc_stack),
    ENTRY(read_just_freed), ENTRY(read_in_magazine), ENTRY(read_flushed),
    ENTRY(read_retired), ENTRY(read_on_other_thread), ENTRY(read_moved_by_realloc),
    ENTRY(read_freed_32k), ENTRY(read_freed_run), ENTRY(read_freed_big),
    ENTRY(write_just_freed), ENTRY(write_in_magazine), ENTRY(write_flushed),
    ENTRY(write_retired), ENTRY(write_on_other_thread), ENTRY(write_moved_by_realloc),
    ENTRY(write_behind_first_kib), ENTRY(write_freed_32k), ENTRY(write_freed_run),
    ENTRY(write_freed_big),
    ENTRY(over_by_one), ENTRY(over_by_one_of_20), ENTRY(over_by_64), ENTRY(over_by_3000),
    ENTRY(over_of_4k), ENTRY(over_of_run), ENTRY(under_by_one), ENTRY(under_by_5000),
    ENTRY(read_over_by_64), ENTRY(read_new_block), ENTRY(reuse_at_once),
};

int main(int count, char **arguments) {
    for (size_t i = 0; i < sizeof ATTACKS / sizeof *ATTACKS; i++) {
        if (count < 2) puts(ATTACKS[i].name);
        else if (!strcmp(arguments[1], ATTACKS[i].name)) return ATTACKS[i].run();
    }
    return count < 2 ? 0 : 99;
}
