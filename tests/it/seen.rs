//! What runs of the tests on devices have shown, of each tiny model: `tests/it/seen/KIND.txt`, a model a line. Where there is a device of the
//! kind, what it does now is held against that, and `AIRRUN_TEST_WRITE=1` writes it down; elsewhere it is what was seen last.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::test_device;

/// What was seen of each model, by its name, on devices of `kind`.
pub(crate) fn on(kind: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(file(kind)).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(model, result)| (model.to_owned(), result.to_owned())).collect()
}

/// Writes down what a model did on the device of this run, if the run is to do that: at once, because trying all of them takes hours.
pub(crate) fn note(model: &str, result: &str) {
    static FILE: Mutex<()> = Mutex::new(());
    if !writes() {
        return;
    }
    let _alone = FILE.lock().unwrap();
    let kind = test_device::name();
    let mut known = on(&kind);
    known.insert(model.to_owned(), result.to_owned());
    let lines: String = known.iter().map(|(model, result)| format!("{model} {result}\n")).collect();
    fs::write(file(&kind), lines).unwrap();
}

/// Says where what was `tried` on the device of this run is not what was seen before. What was never seen may be anything.
pub(crate) fn compare(tried: &BTreeMap<String, String>) -> Result<(), String> {
    if writes() {
        return Ok(());
    }
    let kind = test_device::name();
    let known = on(&kind);
    let differs =
        |(model, result): &(&String, &String)| known.get(*model).is_some_and(|k| k != *result);
    let other: Vec<_> = tried.iter().filter(differs).collect();
    match other.is_empty() {
        true => Ok(()),
        false => Err(format!("not as in tests/it/seen/{kind}.txt: {other:?}")),
    }
}

fn writes() -> bool {
    std::env::var_os("AIRRUN_TEST_WRITE").is_some()
}

fn file(kind: &str) -> PathBuf {
    let kind: String = kind.chars().filter(char::is_ascii_alphabetic).collect();
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/seen").join(kind + ".txt")
}
