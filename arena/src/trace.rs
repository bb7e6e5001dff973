//! Who called: return addresses found on the stack.
//!
//! A report tells who allocated and who freed a guarded block. An unwinder reads tables,
//! takes the loader's lock and may allocate; a chain of frame pointers exists where the
//! compiler was told to keep one. So a trace keeps the words on the stack that could be
//! addresses of code, and the report shows those which are: in a mapping of code, right
//! behind a call. Calls that returned a moment before may have left theirs and be listed,
//! too.

use crate::fatal::Line;
use crate::os::{self, CodeMapping};
use crate::sync::{AtomicUsize, Ordering};

/// Words on the stack that are looked at: the nearest frames.
const LOOK_WORDS: usize = 384;
/// Words that are kept.
const KEEP_WORDS: usize = 96;
/// Lines of a report for one trace.
const LINES: usize = 16;
/// Below this and above [`HIGHEST_CODE`] no code is mapped.
const LOWEST_CODE: usize = 1 << 16;
const HIGHEST_CODE: usize = 1 << 47;
/// Words so near to the stack pointer are addresses of the stack.
const STACK_BYTES: usize = 8 << 20;

/// One thread's stack at one moment. All zeroes is an empty one.
#[derive(Debug)]
pub(crate) struct Trace {
    thread: AtomicUsize,
    /// Zero from the end of the trace on.
    words: [AtomicUsize; KEEP_WORDS],
}

impl Trace {
    /// Records the calling thread's stack. The caller is the only one that writes; a report
    /// may read meanwhile, and then shows what there is.
    #[inline(never)]
    pub(crate) fn record(&self) {
        let near = core::ptr::from_ref(&self).addr();
        // Relaxed, all: words for a report, which comes after the block was handed on.
        self.thread.store(os::thread_id(), Ordering::Relaxed);
        let mut slots = self.words.iter();
        let mut looked = 0;
        os::for_each_stack_word(|word| {
            looked += 1;
            let may_be_code =
                (LOWEST_CODE..HIGHEST_CODE).contains(&word) && word.abs_diff(near) > STACK_BYTES;
            if may_be_code {
                match slots.next() {
                    Some(slot) => slot.store(word, Ordering::Relaxed),
                    None => return false,
                }
            }
            looked < LOOK_WORDS
        });
        for slot in slots {
            slot.store(0, Ordering::Relaxed);
        }
    }

    /// Forgets what was recorded.
    pub(crate) fn clear(&self) {
        // Relaxed: as in `record`.
        self.thread.store(0, Ordering::Relaxed);
        self.words
            .iter()
            .for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Writes the trace to standard error under `title`, nearest call first; nothing where
    /// nothing was recorded.
    ///
    /// Async-signal-safe. The mappings are read once a call: a report has few lines.
    pub(crate) fn report(&self, title: &[u8]) {
        // Relaxed: as in `record`.
        let thread = self.thread.load(Ordering::Relaxed);
        if thread == 0 {
            return;
        }
        Line::new()
            .text(title)
            .text(b" by thread ")
            .number(thread)
            .write();
        let mut lines = 0;
        for word in &self.words {
            let word = word.load(Ordering::Relaxed);
            if word == 0 || lines == LINES {
                return;
            }
            os::for_each_code_mapping(|mapping| {
                if is_return_address(word, &mapping) {
                    lines += 1;
                    Line::new()
                        .text(b"  ")
                        .text(mapping.name)
                        .text(b" + ")
                        .address(word - mapping.base)
                        .write();
                }
            });
        }
    }
}

/// Whether `word` lies in `mapping`, right behind a call.
fn is_return_address(word: usize, mapping: &CodeMapping<'_>) -> bool {
    const LONGEST_CALL: usize = 8;
    if word < mapping.start + LONGEST_CALL || word >= mapping.end {
        return false;
    }
    let mut bytes = [0u8; LONGEST_CALL];
    let at = core::ptr::with_exposed_provenance::<u8>(word - LONGEST_CALL);
    // SAFETY: the bytes lie in a mapping that may be read, as the system says just now.
    unsafe { at.copy_to_nonoverlapping(bytes.as_mut_ptr(), LONGEST_CALL) };
    ends_with_call(bytes)
}

/// Whether an instruction ends here that calls.
#[cfg(target_arch = "x86_64")]
fn ends_with_call(bytes: [u8; 8]) -> bool {
    // call rel32; call r/m64 (FF /2) with 0, 1 or 4 bytes of displacement, with or without
    // a SIB byte.
    let indirect = |opcode: u8, operand: u8| opcode == 0xff && operand >> 3 & 7 == 2;
    let [_, a, b, c, d, e, f, g] = bytes;
    c == 0xe8
        || indirect(f, g)
        || indirect(e, f)
        || indirect(d, e)
        || indirect(b, c)
        || indirect(a, b)
}

/// Whether an instruction ends here that calls.
#[cfg(target_arch = "aarch64")]
fn ends_with_call(bytes: [u8; 8]) -> bool {
    let [.., a, b, c, d] = bytes;
    let word = u32::from_le_bytes([a, b, c, d]);
    // bl imm26; blr Xn and its forms with pointer authentication.
    word >> 26 == 0b10_0101 || word & 0xfe7f_f000 == 0xd63f_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn calls_are_told_from_other_instructions() {
        assert!(ends_with_call([0x90, 0x90, 0x90, 0xe8, 1, 2, 3, 4]));
        assert!(ends_with_call([0, 0, 0, 0, 0, 0, 0xff, 0xd0]), "call rax");
        assert!(
            ends_with_call([0, 0, 0xff, 0x15, 1, 2, 3, 4]),
            "call [rip+x]"
        );
        assert!(!ends_with_call([0x90; 8]));
        assert!(!ends_with_call([0, 0, 0, 0, 0, 0, 0xff, 0xc0]), "inc eax");
    }

    #[test]
    fn a_trace_holds_the_callers_address() {
        // SAFETY: zeroes are an empty trace.
        let trace: Trace = unsafe { core::mem::zeroed() };
        trace.record();
        let here = a_trace_holds_the_callers_address as fn() as usize;
        let words = trace.words.iter().map(|word| word.load(Ordering::Relaxed));
        let near = words
            .filter(|word| (here..here + 4096).contains(word))
            .count();
        assert!(near > 0, "{trace:?}");
        trace.clear();
        assert_eq!(trace.words[0].load(Ordering::Relaxed), 0);
    }
}
