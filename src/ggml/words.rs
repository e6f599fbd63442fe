//! How a text is cut into words before libllama looks for tokens in it: by the regular expressions that it has for each vocabulary. Its own
//! engine is `std::regex`, which goes one call deeper for each character of a match (7000 letters in a row end a thread of 2 MiB) and looks
//! at a long row of blanks anew from each of them. This one reads each character once, and gives the same words.
#![allow(unsafe_code)]

mod expression;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use ggml_sys as sys;

use super::guard::guarded;
use expression::Expression;

/// Puts this engine in the place of libllama's.
pub(super) fn install() {
    // SAFETY: a plain function that lives as long as the program; no thread tokenizes yet.
    unsafe { sys::ggml_sys_set_cut(Some(cut)) };
}

/// The engine, as C calls it.
unsafe extern "C" fn cut(
    regex: *const u32,
    n_regex: usize,
    text: *const u32,
    parts: *const usize,
    n_parts: usize,
    _wide: bool,
    take: sys::ggml_sys_take_word,
    to: *mut c_void,
) -> bool {
    guarded(false, || {
        let Some(take) = take else { return false };
        // SAFETY: the caller's arrays, as long as it says; the text has as many characters as its parts together.
        let (regex, text, parts) = unsafe {
            let parts = slice(parts, n_parts);
            (slice(regex, n_regex), slice(text, parts.iter().sum()), parts)
        };
        let Some(regex) = compiled(regex) else { return false };
        // SAFETY: what `take` is for.
        words(&regex, text, parts, |length| unsafe { take(to, length) }).is_some()
    })
}

/// # Safety
///
/// `at` points to `n` values, or `n` is 0.
unsafe fn slice<'a, T>(at: *const T, n: usize) -> &'a [T] {
    if n == 0 {
        return &[];
    }
    // SAFETY: by this function's contract.
    unsafe { std::slice::from_raw_parts(at, n) }
}

/// The expression; each is made once.
fn compiled(regex: &[u32]) -> Option<Arc<Expression>> {
    static MADE: Mutex<Option<HashMap<Vec<u32>, Arc<Expression>>>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = made.get_or_insert_default();
    if let Some(known) = made.get(regex) {
        return Some(Arc::clone(known));
    }
    let new = Arc::new(Expression::new(regex)?);
    made.insert(regex.to_vec(), Arc::clone(&new));
    Some(new)
}

/// Gives the lengths of all words to `take`: what matches, and what lies between.
fn words(
    regex: &Expression,
    text: &[u32],
    parts: &[usize],
    mut take: impl FnMut(usize),
) -> Option<()> {
    let mut rest = text;
    for &part in parts {
        let (letters, after) = rest.split_at_checked(part)?;
        rest = after;
        // What is no character (half of a pair) is like no other either.
        let text: String =
            letters.iter().map(|&c| char::from_u32(c).unwrap_or('\u{FFFD}')).collect();
        let count = |from: usize, to: usize| text[from..to].chars().count();
        let (mut done, mut at) = (0, 0);
        while let Some(found) = regex.find(&text, at) {
            if found.start > done {
                take(count(done, found.start));
            }
            take(count(found.start, found.end));
            done = found.end;
            let next = || text[done..].chars().next().map_or(1, char::len_utf8);
            at = if found.is_empty() { done + next() } else { done };
        }
        if done < text.len() {
            take(count(done, text.len()));
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What libllama's expressions look like: for bytes, with its classes of characters as it writes them, and for Unicode.
    const OF_BYTES: &[&str] = &[
        "'s|'t|'re|'ve|'m|'ll|'d| ?[LA-Za-z]+| ?[N0-9]+| ?[^\\sLA-Za-zN0-9]+|\\s+(?!\\S)",
        "(?:'[sS]|'[tT]|'[rR][eE])|[^\\r\\nLA-Za-zN0-9]?[LA-Za-z]+|[N0-9]{1,3}| ?[^\\sLA-Za-zN0-9]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        "[^\\r\\nLA-Za-zN0-9]?((?=[LA-Za-z])([^a-z]))*((?=[LA-Za-z])([^A-Z]))+(?:'[sS]|'[lL][lL])?|[^\\r\\nLA-Za-zN0-9]?((?=[LA-Za-z])([^a-z]))+((?=[LA-Za-z])([^A-Z]))*(?:'[sS]|'[lL][lL])?|[N0-9]{1,3}| ?[^\\sLA-Za-zN0-9]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\nLA-Za-zP!-#%-*,-/:-;?-@\\[-\\]_\\{\\}]?[LA-Za-zM]+| ?[P!-#%-*]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
        "(?:'[sS])|[^\\r\\nLA-Za-z]?(?:[LA-Za-z][M]*(?: [LA-Za-z][M]*)*)+|[N0-9]| ?[^\\sLA-Za-zN0-9]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
        "(?:'[sS])|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}",
        "[P!-/\\$\\+<=>\\^~\\|`]+",
        "[N0-9]{1}",
        "[N0-9]+",
    ];
    const OF_UNICODE: &[&str] = &[
        "[\r\n]",
        "\\s?[A-Za-zµÀ-ÖØ-öΣ-ϵ𐐀-𐑏]+",
        "\\s?[!-/:-~！-／：-～‘-‟　-。]+",
        "\\s+$",
        "[一-龥ࠀ-一가-퟿]+",
        " ?[^(\\s|.,!?…。，、।۔،)]+",
        "[0-9][0-9][0-9]",
        "(?=(\\d{3})+(?!\\d))",
        "<sentinel:[0-9]+>",
        "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
        "([\\t\\n]|    |  )",
        "\\S+",
        "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
    ];

    /// The classes of libllama's byte expressions, which are bytes of their own.
    fn of_bytes(regex: &str) -> Vec<u32> {
        let class = |c: char| match c {
            'N' => 0xD1,
            'L' => 0xD2,
            'P' => 0xD3,
            'M' => 0xD4,
            c => u32::from(c),
        };
        regex.chars().map(class).collect()
    }

    type Cut = unsafe extern "C" fn(
        *const u32,
        usize,
        *const u32,
        *const usize,
        usize,
        bool,
        sys::ggml_sys_take_word,
        *mut c_void,
    ) -> bool;

    fn by(engine: Cut, regex: &[u32], text: &[u32], parts: &[usize], wide: bool) -> Vec<usize> {
        unsafe extern "C" fn take(to: *mut c_void, length: usize) {
            // SAFETY: the vector below.
            unsafe { (*to.cast::<Vec<usize>>()).push(length) };
        }
        let mut words: Vec<usize> = Vec::new();
        let to = (&raw mut words).cast();
        let (r, t, p) = (regex.as_ptr(), text.as_ptr(), parts.as_ptr());
        // SAFETY: valid arrays, and a function for this kind of place.
        let done = unsafe { engine(r, regex.len(), t, p, parts.len(), wide, Some(take), to) };
        assert!(done, "the expression cannot be used");
        words
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn words_are_those_of_libllamas_engine(
            which in 0..OF_BYTES.len() + OF_UNICODE.len(),
            text in "([a-cA-C]{0,4}|[ \t\n\r]{0,5}|[0-9]{0,8}|['\\-=#.,!?/(|)~_]{0,3}|'s|'LL|[\u{D1}-\u{D5}]|<sentinel:1>|IMGIMGABZ|[é一가！…𐐀ऀ،。]){0,12}",
            split in 0..40_usize,
        ) {
            let wide = which >= OF_BYTES.len();
            let regex = match OF_BYTES.get(which) {
                Some(regex) => of_bytes(regex),
                None => OF_UNICODE[which - OF_BYTES.len()].chars().map(u32::from).collect(),
            };
            let text: Vec<u32> = text.chars().map(u32::from).filter(|&c| wide || c < 256).collect();
            let split = split.min(text.len());
            let parts = [split, text.len() - split];
            prop_assert_eq!(
                by(cut, &regex, &text, &parts, wide),
                by(sys::ggml_sys_cut_std, &regex, &text, &parts, wide),
                "{:?}", OF_BYTES.iter().chain(OF_UNICODE).nth(which)
            );
        }
    }

    #[test]
    fn long_rows_of_one_kind_are_cut_soon() {
        let n = 1 << 16;
        for one in ["a", "A", " ", "=", "\n", "7", "\u{D2}", "。", "aA", " \n"] {
            let mut text: Vec<u32> = one.chars().cycle().take(n).map(u32::from).collect();
            text.push(u32::from('x'));
            for (which, regex) in OF_BYTES.iter().chain(OF_UNICODE).enumerate() {
                let wide = which >= OF_BYTES.len();
                if !wide && text.iter().any(|&c| c > 255) {
                    continue;
                }
                let regex =
                    if wide { regex.chars().map(u32::from).collect() } else { of_bytes(regex) };
                let words = by(cut, &regex, &text, &[n + 1], wide);
                assert_eq!(words.iter().sum::<usize>(), n + 1);
            }
        }
    }
}
