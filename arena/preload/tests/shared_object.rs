//! The file itself: what it exports, what it needs, how it uses thread-locals.
//!
//! What could go wrong: a thread-local of `std`, a symbol exported by accident
//! or a relocation in the code does not fail any run here, but costs every
//! program that preloads the library, or makes `dlopen` fail.

mod common;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;

use common::{block, library};
use object::elf;
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol};

/// Most bytes of thread-local storage the library may use: what `tls` of the arena says.
const TLS_LIMIT: u64 = 16;

/// Greatest length of the file in bytes.
const FILE_LIMIT: usize = 200_000;

/// Entries of the dynamic section, as tag and value.
fn dynamic_entries(data: &[u8]) -> Vec<(i64, u64)> {
    let header = elf::FileHeader64::<Endianness>::parse(data).expect("an ELF file");
    let endian = header.endian().expect("a byte order");
    let segments = header
        .program_headers(endian, data)
        .expect("program headers");
    segments
        .iter()
        .filter_map(|segment| segment.dynamic(endian, data).expect("a dynamic section"))
        .flatten()
        .map(|entry| (entry.d_tag(endian), entry.d_val(endian)))
        .collect()
}

/// Sizes of the thread-local segments, and whether any segment is both writable
/// and executable.
fn segments(data: &[u8]) -> (Vec<u64>, bool) {
    let header = elf::FileHeader64::<Endianness>::parse(data).expect("an ELF file");
    let endian = header.endian().expect("a byte order");
    let segments = header
        .program_headers(endian, data)
        .expect("program headers");
    let sizes = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == elf::PT_TLS)
        .map(|segment| segment.p_memsz(endian))
        .collect();
    let both = elf::PF_W | elf::PF_X;
    (
        sizes,
        segments
            .iter()
            .any(|segment| segment.p_flags(endian) & both == both),
    )
}

#[test]
fn exactly_the_c_functions_are_exported() {
    let data = fs::read(library()).expect("the library");
    let file = ElfFile64::<Endianness>::parse(&*data).expect("an ELF file");
    let exported: BTreeSet<String> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition() && symbol.is_global())
        .map(|symbol| symbol.name().expect("a name").to_owned())
        .collect();
    let wanted: BTreeSet<String> = block::FUNCTIONS
        .iter()
        .map(|name| name.to_str().expect("plain ASCII").to_owned())
        .collect();
    assert_eq!(exported, wanted);
}

#[test]
fn thread_locals_are_few_and_at_fixed_places() {
    let data = fs::read(library()).expect("the library");
    let (sizes, _) = segments(&data);
    assert!(
        sizes.iter().sum::<u64>() <= TLS_LIMIT,
        "thread-local segments of {sizes:?} bytes"
    );
    let file = ElfFile64::<Endianness>::parse(&*data).expect("an ELF file");
    let dynamic_model = file
        .dynamic_symbols()
        .filter_map(|symbol| symbol.name().ok().map(str::to_owned))
        .find(|name| name == "__tls_get_addr");
    assert_eq!(dynamic_model, None, "a thread-local is reached by a call");
}

#[test]
fn the_code_is_shared_between_processes() {
    let data = fs::read(library()).expect("the library");
    let entries = dynamic_entries(&data);
    let text_relocations = entries.iter().any(|(tag, value)| {
        *tag == elf::DT_TEXTREL
            || (*tag == elf::DT_FLAGS && value & u64::from(elf::DF_TEXTREL) != 0)
    });
    assert!(
        !text_relocations,
        "the loader would have to write into the code"
    );
    let (_, writable_code) = segments(&data);
    assert!(!writable_code);
}

#[test]
fn nothing_but_the_c_library_is_needed() {
    let data = fs::read(library()).expect("the library");
    let entries = dynamic_entries(&data);
    let needed = entries
        .iter()
        .filter(|(tag, _)| *tag == elf::DT_NEEDED)
        .count();
    assert_eq!(
        needed, 1,
        "the libraries needed are more than the C library"
    );
}

#[test]
fn the_file_is_small() {
    let path = library();
    let bytes = fs::metadata(&path).expect("the library").len();
    eprintln!("{}: {bytes} bytes", path.display());
    assert!(
        usize::try_from(bytes).expect("fits") <= FILE_LIMIT,
        "{bytes} bytes"
    );
}

/// A program may also load the library late, for its statistics or by mistake;
/// thread-locals at fixed places must then fit what the C library keeps free.
#[test]
fn the_library_can_be_loaded_late() {
    let path = CString::new(library().into_os_string().into_encoded_bytes()).expect("no zero");
    // SAFETY: the library's constructor only reads the environment; local, so
    // that no symbol of this program changes its meaning.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null(), "dlopen fails");
    // SAFETY: `handle` is an open library and the name a C string.
    let address = unsafe { libc::dlsym(handle, c"malloc_trim".as_ptr()) };
    assert!(!address.is_null());
    // SAFETY: `address` is that of malloc_trim, whose C type this is.
    let trim = unsafe {
        core::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn(usize) -> libc::c_int>(
            address,
        )
    };
    // SAFETY: any pad may be given.
    assert!([0, 1].contains(&unsafe { trim(0) }));
}
