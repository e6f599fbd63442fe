//! What is said once a model is loaded: what comes from where with each token, how fast that will be, and who drafts; and where its context is
//! another than the one it was made for. In a conversation, nothing is said of a model that is all there with all that it could have.

use crate::cli::printer::Printer;
use crate::engine::{ContextRoom, Engine, Foreseen};
use crate::units::Bytes;

/// The least context that libllama makes. (tokens)
const LEAST: u32 = 256;

/// Says it on stderr, for one conversation.
pub(super) fn introduce(engine: &Engine, printer: &Printer) {
    streams(engine, printer);
    if let Some(line) = context(&engine.context(), "", engine.writes_text()) {
        printer.dim(line);
    }
}

/// Says it on stderr for a server, whose clients do not see where it was started: the context and the speed of any model.
pub(super) fn introduce_server(engine: &Engine, printer: &Printer) {
    streams(engine, printer);
    let of = " for each request";
    let odd = context(&engine.context(), of, engine.writes_text());
    let line = odd.unwrap_or_else(|| format!("context: {} tokens{of}", engine.context().each));
    let resident = engine.plan().streamed.is_empty() && engine.writes_text();
    let speed = if resident { format!("; {}", expected(engine)) } else { String::new() };
    printer.dim(format_args!("{line}{speed}"));
}

/// What comes from where, if not everything is there.
fn streams(engine: &Engine, printer: &Printer) {
    if !engine.plan().streamed.is_empty() {
        let speed = match engine.writes_text() {
            true => format!("; {}", expected(engine)),
            false => String::new(),
        };
        printer.dim(format_args!("{}{speed}", engine.describe_streams()));
        if let Some(foreseen) = engine.foreseen() {
            printer.dim(drafts(foreseen));
            if let Some(why) = &foreseen.why_not {
                printer.dim(format_args!("not by the model's own head: {why}"));
            }
        }
    }
}

/// `about 0.35 tokens/s`.
pub(super) fn expected(engine: &Engine) -> String {
    let pace = engine.pace();
    let rate = pace.generation().tokens_per_second;
    let guess = if pace.is_measured() { "" } else { " (a guess: `airrun plan` measures)" };
    format!("about {}{guess}", rounded(rate))
}

/// `0.35 tokens/s`.
fn rounded(rate: f64) -> String {
    let digits = match rate {
        r if r < 0.995 => 2,
        r if r < 9.95 => 1,
        _ => 0,
    };
    format!("{rate:.digits$} tokens/s")
}

/// `drafts by n-grams and tiny-draft: 4.1 tokens in a pass, about 2.9 tokens/s`, or why there are none to speak of.
fn drafts(foreseen: &Foreseen) -> String {
    let Foreseen { who, gain, .. } = foreseen;
    if gain.drafted == 0 {
        return format!(
            "drafts by {who}, where they pay: passes of several tokens are expected to take too long"
        );
    }
    let (per_pass, rate) = (gain.tokens_per_pass, gain.tokens_per_second);
    format!("drafts by {who}: about {per_pass:.1} tokens in a pass, {}", rounded(rate))
}

/// What is said of a context that is longer than the one that the model was made for.
pub(super) fn too_long(context: &ContextRoom, of: &str) -> Option<String> {
    let ContextRoom { each, asked, trained, .. } = *context;
    let (trained, asked) = (trained?, asked?);
    (asked > trained).then(|| {
        let times = asked.div_ceil(trained.max(1));
        format!(
            "context: {each} tokens{of}, and the model was made for {trained}: beyond that it gets worse \
             (--rope-scale {times} stretches its rotary positions)"
        )
    })
}

/// What is odd about the context, if anything is.
fn context(context: &ContextRoom, of: &str, writes_text: bool) -> Option<String> {
    let ContextRoom { each, asked, trained, more } = *context;
    let trained = trained?;
    match asked {
        Some(0) => None,
        Some(n) if n > trained && writes_text => too_long(context, of),
        Some(n) if n < LEAST && each > n => {
            Some(format!("context: {each} tokens{of}, which is the least"))
        }
        None if each < trained => {
            let more = match more {
                Bytes::ZERO => String::new(),
                more => format!("; -c {trained} takes {more} more"),
            };
            Some(format!("context: {each} of the model's {trained} tokens{of}{more}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::MIB;

    #[test]
    fn a_context_is_said_where_it_is_odd() {
        let said = |each, asked, trained| {
            context(&ContextRoom { each, asked, trained, more: MIB }, "", true).unwrap_or_default()
        };
        let want = "context: 512 of the model's 1024 tokens; -c 1024 takes 1.00 MiB more";
        assert_eq!(said(512, None, Some(1024)), want);
        let long = said(2000, Some(2000), Some(1024));
        assert!(long.contains("made for 1024") && long.contains("--rope-scale 2 "), "{long}");
        assert!(said(256, Some(64), Some(1024)).contains("the least"));
        for (each, asked, trained) in [
            (1024, None, Some(1024)),
            (512, Some(512), Some(1024)),
            (1024, Some(0), Some(1024)),
            (4096, None, None),
        ] {
            assert_eq!(said(each, asked, trained), "", "{each} {asked:?} {trained:?}");
        }
    }
}
