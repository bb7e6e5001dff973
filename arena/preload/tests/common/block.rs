//! The C functions behind an owning type, so that tests contain no raw pointers.
//!
//! The functions are looked up with `dlsym`: a compiler that knows `malloc` and
//! `free` removes calls whose results it can do without.

use core::ffi::{CStr, c_int, c_void};
use core::hint::black_box;
use core::ptr;

type Raw = *mut c_void;

/// Names of all functions that the library defines.
pub(crate) const FUNCTIONS: [&CStr; 17] = [
    c"aligned_alloc",
    c"calloc",
    c"free",
    c"free_aligned_sized",
    c"free_sized",
    c"mallinfo",
    c"mallinfo2",
    c"malloc",
    c"malloc_stats",
    c"malloc_trim",
    c"malloc_usable_size",
    c"memalign",
    c"posix_memalign",
    c"pvalloc",
    c"realloc",
    c"reallocarray",
    c"valloc",
];

/// Looks `$name` up as a function of the type given.
macro_rules! function {
    ($name:literal as $type:ty) => {{
        let address = address_of($name);
        assert!(!address.is_null(), "{:?} is not defined", $name);
        // SAFETY: `address` is that of the C function `$name`, and `$type` is
        // its type in the C library's manual; both are pointers in size.
        unsafe { core::mem::transmute::<Raw, $type>(address) }
    }};
}

/// Address of the function that the program gets for `name`; null when nobody
/// defines it.
pub(crate) fn address_of(name: &CStr) -> Raw {
    // SAFETY: `name` is a C string; `RTLD_DEFAULT` searches the whole program.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

/// File that the function `name` was taken from.
pub(crate) fn origin_of(name: &CStr) -> String {
    let mut info = libc::Dl_info {
        dli_fname: ptr::null(),
        dli_fbase: ptr::null_mut(),
        dli_sname: ptr::null(),
        dli_saddr: ptr::null_mut(),
    };
    // SAFETY: any address may be asked for; `info` is valid for writing.
    let found = unsafe { libc::dladdr(address_of(name), &raw mut info) };
    assert_ne!(found, 0, "{name:?} belongs to no file");
    // SAFETY: dladdr succeeded, so the name of the file is a C string that lives
    // as long as the file stays loaded.
    unsafe { CStr::from_ptr(info.dli_fname) }
        .to_string_lossy()
        .into_owned()
}

/// Sets the calling thread's `errno`.
pub(crate) fn set_errno(code: c_int) {
    // SAFETY: the C library returns a valid pointer to this thread's errno.
    unsafe { *libc::__errno_location() = code }
}

/// Returns the calling thread's `errno`.
pub(crate) fn errno() -> c_int {
    // SAFETY: as in `set_errno`.
    unsafe { *libc::__errno_location() }
}

/// A call that allocates, with its arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Malloc(usize),
    Calloc(usize, usize),
    ReallocNull(usize),
    ReallocarrayNull(usize, usize),
    AlignedAlloc(usize, usize),
    Memalign(usize, usize),
    PosixMemalign(usize, usize),
    Valloc(usize),
    Pvalloc(usize),
}

impl Call {
    /// One call of each function for a block of `size` bytes.
    pub(crate) fn all_of_size(size: usize) -> [Self; 9] {
        [
            Self::Malloc(size),
            Self::Calloc(1, size),
            Self::ReallocNull(size),
            Self::ReallocarrayNull(size, 1),
            Self::AlignedAlloc(64, size),
            Self::Memalign(64, size),
            Self::PosixMemalign(64, size),
            Self::Valloc(size),
            Self::Pvalloc(size),
        ]
    }

    /// Number of bytes asked for.
    fn len(self) -> usize {
        match self {
            Self::Malloc(size)
            | Self::ReallocNull(size)
            | Self::AlignedAlloc(_, size)
            | Self::Memalign(_, size)
            | Self::PosixMemalign(_, size)
            | Self::Valloc(size)
            | Self::Pvalloc(size) => size,
            Self::Calloc(count, size) | Self::ReallocarrayNull(count, size) => {
                count.saturating_mul(size)
            }
        }
    }

    /// Makes the call. The error is `errno`, or what `posix_memalign` returned.
    pub(crate) fn make(self) -> Result<Block, c_int> {
        type One = unsafe extern "C" fn(usize) -> Raw;
        type Two = unsafe extern "C" fn(usize, usize) -> Raw;
        let one = |function: One, size| {
            // SAFETY: the functions of this type take any size.
            unsafe { function(size) }
        };
        let two = |function: Two, first, second| {
            // SAFETY: the functions of this type take any pair of sizes.
            unsafe { function(first, second) }
        };
        set_errno(0);
        let address = match self {
            Self::Malloc(size) => one(function!(c"malloc" as One), size),
            Self::Valloc(size) => one(function!(c"valloc" as One), size),
            Self::Pvalloc(size) => one(function!(c"pvalloc" as One), size),
            Self::Calloc(count, size) => two(function!(c"calloc" as Two), count, size),
            Self::AlignedAlloc(align, size) => two(function!(c"aligned_alloc" as Two), align, size),
            Self::Memalign(align, size) => two(function!(c"memalign" as Two), align, size),
            Self::ReallocNull(size) => raw_realloc(ptr::null_mut(), size),
            Self::ReallocarrayNull(count, size) => raw_reallocarray(ptr::null_mut(), count, size),
            Self::PosixMemalign(align, size) => return posix_memalign(align, size),
        };
        let code = errno();
        if address.is_null() {
            Err(code)
        } else {
            Ok(Block {
                address,
                len: self.len(),
            })
        }
    }
}

/// A block that the caller of the C functions owns.
#[derive(Debug)]
pub(crate) struct Block {
    address: Raw,
    /// Bytes asked for.
    len: usize,
}

// SAFETY: the block is owned, and the C functions may be called from any thread.
unsafe impl Send for Block {}

impl Block {
    pub(crate) fn address(&self) -> usize {
        self.address.addr()
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the block has `len` bytes, which were allocated and written by
        // `fill` or zeroed, or are plain bytes of the C heap; borrowed as `self`.
        unsafe { core::slice::from_raw_parts_mut(self.address.cast(), self.len) }
    }

    /// Makes every byte that may be used part of the block.
    pub(crate) fn claim_usable(&mut self) {
        self.len = usable_size(self.address);
    }

    /// Fills the block with a pattern that differs between seeds.
    pub(crate) fn fill(&mut self, seed: u8) {
        for (index, byte) in self.bytes().iter_mut().enumerate() {
            *byte = black_box(pattern(index, seed));
        }
    }

    /// Whether the first `len` bytes hold the pattern of `seed`.
    pub(crate) fn holds(&mut self, len: usize, seed: u8) -> bool {
        self.bytes()
            .iter()
            .take(len)
            .enumerate()
            .all(|(index, byte)| *byte == pattern(index, seed))
    }

    /// Changes the size; the error gives back the block, and `errno`.
    pub(crate) fn realloc(self, len: usize) -> Result<Self, (Self, c_int)> {
        set_errno(0);
        let address = raw_realloc(self.address, len);
        let code = errno();
        if address.is_null() {
            Err((self, code))
        } else {
            Ok(Self { address, len })
        }
    }

    /// Changes the size with `reallocarray`, as [`Block::realloc`].
    pub(crate) fn reallocarray(self, count: usize, size: usize) -> Result<Self, (Self, c_int)> {
        set_errno(0);
        let address = raw_reallocarray(self.address, count, size);
        let code = errno();
        let len = count.saturating_mul(size);
        if address.is_null() {
            Err((self, code))
        } else {
            Ok(Self { address, len })
        }
    }

    /// Frees the block with `realloc(block, 0)`; whether that returned null.
    pub(crate) fn realloc_to_zero(self) -> bool {
        raw_realloc(self.address, 0).is_null()
    }

    pub(crate) fn free(self) {
        free(self.address);
    }

    pub(crate) fn free_sized(self) {
        let function = function!(c"free_sized" as unsafe extern "C" fn(Raw, usize));
        // SAFETY: the block is live and owned, and `len` is the size asked for.
        unsafe { function(self.address, self.len) }
    }

    pub(crate) fn free_aligned_sized(self, align: usize) {
        let function = function!(c"free_aligned_sized" as unsafe extern "C" fn(Raw, usize, usize));
        // SAFETY: as in `free_sized`.
        unsafe { function(self.address, align, self.len) }
    }
}

fn pattern(index: usize, seed: u8) -> u8 {
    index.to_le_bytes()[0].wrapping_mul(31).wrapping_add(seed)
}

/// `free(NULL)`.
pub(crate) fn free_null() {
    free(ptr::null_mut());
}

/// `malloc_usable_size(NULL)`.
pub(crate) fn usable_size_of_null() -> usize {
    usable_size(ptr::null_mut())
}

fn free(address: Raw) {
    let function = function!(c"free" as unsafe extern "C" fn(Raw));
    // SAFETY: null, or the address of a `Block` that is consumed by the caller.
    unsafe { function(address) }
}

fn usable_size(address: Raw) -> usize {
    let function = function!(c"malloc_usable_size" as unsafe extern "C" fn(Raw) -> usize);
    // SAFETY: null, or the address of a live `Block`.
    unsafe { function(address) }
}

fn raw_realloc(address: Raw, len: usize) -> Raw {
    let function = function!(c"realloc" as unsafe extern "C" fn(Raw, usize) -> Raw);
    // SAFETY: null, or the address of a `Block` that the caller consumes.
    unsafe { function(address, len) }
}

fn raw_reallocarray(address: Raw, count: usize, size: usize) -> Raw {
    let function = function!(c"reallocarray" as unsafe extern "C" fn(Raw, usize, usize) -> Raw);
    // SAFETY: as in `raw_realloc`.
    unsafe { function(address, count, size) }
}

/// Checks on the way that `errno` is left alone, and the result on failure too.
fn posix_memalign(align: usize, len: usize) -> Result<Block, c_int> {
    type Function = unsafe extern "C" fn(*mut Raw, usize, usize) -> c_int;
    let function = function!(c"posix_memalign" as Function);
    let untouched: Raw = ptr::without_provenance_mut(0x5a5a);
    let mut address = untouched;
    set_errno(77);
    // SAFETY: `address` is valid for writing a pointer.
    let code = unsafe { function(&raw mut address, align, len) };
    assert_eq!(errno(), 77, "posix_memalign({align}, {len}) changed errno");
    if code == 0 {
        return Ok(Block { address, len });
    }
    assert_eq!(
        address, untouched,
        "posix_memalign failed and wrote a result"
    );
    Err(code)
}

/// `mallinfo2()`.
pub(crate) fn mallinfo2() -> libc::mallinfo2 {
    let function = function!(c"mallinfo2" as unsafe extern "C" fn() -> libc::mallinfo2);
    // SAFETY: the function takes nothing and returns plain numbers.
    unsafe { function() }
}

/// `mallinfo()`.
pub(crate) fn mallinfo() -> libc::mallinfo {
    let function = function!(c"mallinfo" as unsafe extern "C" fn() -> libc::mallinfo);
    // SAFETY: as in `mallinfo2`.
    unsafe { function() }
}

/// `malloc_trim(0)`.
pub(crate) fn malloc_trim() -> c_int {
    let function = function!(c"malloc_trim" as unsafe extern "C" fn(usize) -> c_int);
    // SAFETY: any pad may be given.
    unsafe { function(0) }
}

/// `malloc_stats()`.
pub(crate) fn malloc_stats() {
    let function = function!(c"malloc_stats" as unsafe extern "C" fn());
    // SAFETY: the function takes nothing and prints.
    unsafe { function() }
}
