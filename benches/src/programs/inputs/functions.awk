# Writes a C program of so many functions.
BEGIN {
    print "struct item { int key; double value; struct item *next; };"
    for (f = 0; f < size; f++) {
        printf "static int f%d(struct item *list, int n) {\n    int sum = %d;\n", f, f
        printf "    for (int i = 0; i < n; i++) {\n"
        for (line = 0; line < 12; line++) {
            printf "        if (list[i].key %% %d == %d) sum += (int)(list[i].value * %d) ^ (sum << %d);\n", \
                line + 2, f % (line + 2), f + line, line % 5 + 1
        }
        printf "        if (list[i].next) sum -= list[i].next->key;\n    }\n"
        printf "    switch (sum %% 7) { case 0: return n; case 1: return sum + 1; default: return sum; }\n}\n"
    }
    print "int all(struct item *list, int n) {\n    int sum = 0;"
    for (f = 0; f < size; f++) printf "    sum += f%d(list, n);\n", f
    print "    return sum;\n}"
}
