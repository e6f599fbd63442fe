//! What a test says that cannot be run here; where `AIRRUN_TEST_NO_SKIP=1`, as in continuous integration, that is a failure.

/// A test, or a part of one, is skipped for want of `what`, which set-up installs.
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
#[track_caller]
pub(crate) fn skipped(what: &str) {
    let may_not = std::env::var_os("AIRRUN_TEST_NO_SKIP").is_some_and(|value| value == "1");
    assert!(!may_not, "skipped, where nothing may be: {what}");
    eprintln!("skipped: {what}");
}
