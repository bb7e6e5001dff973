//! The programs.
//!
//! Each is a line for `sh` in the folder of inputs. `$n` is the amount of work, 8 or, in the
//! quick form, 1. What a line prints must be the same each time.

/// A program, and what it is given.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    /// The command that allocates; it must listen to a preloaded library.
    pub(super) command: &'static str,
    /// Other commands that the lines need.
    pub(super) also: &'static [&'static str],
    /// Makes the input, once.
    pub(super) prepare: &'static str,
    pub(super) run: &'static str,
}

/// A program that needs nothing but its command and the files of [`FILES`].
const fn plain(name: &'static str, command: &'static str, run: &'static str) -> Program {
    Program {
        name,
        command,
        also: &[],
        prepare: "",
        run,
    }
}

/// A program with an input that is made first.
const fn fed(
    name: &'static str,
    command: &'static str,
    also: &'static [&'static str],
    prepare: &'static str,
    run: &'static str,
) -> Program {
    Program {
        name,
        command,
        also,
        prepare,
        run,
    }
}

/// Puts the interpreter itself where a script that chooses one may stand.
const PYTHON: &str = r#"[ -e bin/python3 ] || ln -s "$(python3 -c 'import sys; print(sys.executable)')" bin/python3"#;

/// The lines of words that several programs read.
const TEXT: &str = "[ -e text ] || awk -v size=$((n * 3000)) -f lines.awk >text";

pub(super) const PROGRAMS: [Program; 26] = [
    plain(
        "true-x100",
        "/bin/true",
        "i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i + 1)); done",
    ),
    fed(
        "python-start",
        "python3",
        &[],
        PYTHON,
        "for i in 1 2 3 4 5; do python3 -c pass; done",
    ),
    fed(
        "gcc-O2",
        "gcc",
        &["awk"],
        "awk -v size=$((n * 4)) -f functions.awk >program.c",
        "gcc -O2 -c program.c -o program.o && cksum program.o",
    ),
    plain(
        "g++-O1",
        "g++",
        "g++ -O1 -DTABLES=$((n / 4)) -c program.cpp -o templates.o && cksum templates.o",
    ),
    fed(
        "ld",
        "ld",
        &["g++"],
        "g++ -O0 -g -DTABLES=$((n / 4 + 1)) -c program.cpp -o linked.o",
        "i=0; while [ $i -lt $n ]; do g++ -static linked.o -o linked; i=$((i + 2)); done; cksum linked",
    ),
    fed(
        "make",
        "make",
        &["awk"],
        "awk -v size=$((n * 400)) -f rules.awk >rules.mk",
        "make -n -f rules.mk | cksum",
    ),
    fed(
        "python-json",
        "python3",
        &[],
        PYTHON,
        "python3 texts.py $((n * 5000))",
    ),
    fed(
        "python-objects",
        "python3",
        &[],
        PYTHON,
        "python3 objects.py $((n * 15))",
    ),
    fed(
        "python-malloc",
        "python3",
        &[],
        PYTHON,
        "PYTHONMALLOC=malloc python3 texts.py $((n * 5000))",
    ),
    plain("perl", "perl", "perl hash.pl $((n * 25000))"),
    plain("ruby", "ruby", "ruby strings.rb $((n * 15000))"),
    plain("lua", "lua5.4", "lua5.4 tables.lua $((n * 7))"),
    plain("php", "php", "php -n arrays.php $((n * 15000))"),
    plain("node", "node", "node buffers.js $((n * 40000))"),
    plain("tcl", "tclsh", "tclsh lists.tcl $((n * 20000))"),
    plain("bash", "bash", "bash arrays.bash $((n * 5000))"),
    fed("gawk", "gawk", &[], TEXT, "gawk -f words.awk text"),
    fed("mawk", "mawk", &[], TEXT, "mawk -f words.awk text"),
    fed(
        "jq",
        "jq",
        &["awk"],
        "awk -v size=$((n * 2000)) -f items.awk >items.json",
        "jq -c -f change.jq items.json",
    ),
    plain(
        "sqlite",
        "sqlite3",
        "sqlite3 -cmd \".parameter set :size $((n * 15000))\" :memory: <tables.sql",
    ),
    fed(
        "redis",
        "redis-server",
        &["redis-benchmark", "redis-cli"],
        "",
        "sh redis.sh $((n * 5000))",
    ),
    fed(
        "git-log",
        "git",
        &["seq"],
        "[ -e repository ] || sh repository.sh $((n * 75))",
        "git -C repository log --stat --patch | cksum",
    ),
    fed(
        "git-repack",
        "git",
        &["seq"],
        "[ -e repository ] || sh repository.sh $((n * 75))",
        "git -C repository -c pack.threads=2 repack -adfq --window=20 && git -C repository rev-list --objects --all | cksum",
    ),
    fed(
        "sort",
        "sort",
        &["awk"],
        TEXT,
        "cat text text text text | sort -S 4M --parallel=2 | cksum",
    ),
    fed(
        "xz",
        "xz",
        &["awk"],
        TEXT,
        "xz -T2 --block-size=1MiB -1 -c text | xz -T2 -dc | cksum",
    ),
    fed(
        "zstd",
        "zstd",
        &["awk"],
        TEXT,
        "zstd -q -T2 -9 -c text | zstd -q -dc | cksum",
    ),
];

/// The files that the lines name.
pub(super) const FILES: [(&str, &str); 19] = [
    ("arrays.bash", include_str!("inputs/arrays.bash")),
    ("arrays.php", include_str!("inputs/arrays.php")),
    ("buffers.js", include_str!("inputs/buffers.js")),
    ("change.jq", include_str!("inputs/change.jq")),
    ("functions.awk", include_str!("inputs/functions.awk")),
    ("hash.pl", include_str!("inputs/hash.pl")),
    ("items.awk", include_str!("inputs/items.awk")),
    ("lines.awk", include_str!("inputs/lines.awk")),
    ("lists.tcl", include_str!("inputs/lists.tcl")),
    ("objects.py", include_str!("inputs/objects.py")),
    ("program.cpp", include_str!("inputs/program.cpp")),
    ("redis.sh", include_str!("inputs/redis.sh")),
    ("repository.sh", include_str!("inputs/repository.sh")),
    ("rules.awk", include_str!("inputs/rules.awk")),
    ("strings.rb", include_str!("inputs/strings.rb")),
    ("tables.lua", include_str!("inputs/tables.lua")),
    ("tables.sql", include_str!("inputs/tables.sql")),
    ("texts.py", include_str!("inputs/texts.py")),
    ("words.awk", include_str!("inputs/words.awk")),
];
