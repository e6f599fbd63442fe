//! One answer, as `chat` and `run` give it: the model loaded with its status line, text printed as
//! it comes, Ctrl-C heard.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use crate::cli::args::sampling::UsualSampleArgs;
use crate::cli::args::{LoadArgs, SampleArgs};
use crate::cli::draft;
use crate::cli::interrupt::Interrupt;
use crate::cli::printer::Printer;
use crate::cli::progress::{Status, Watched, Work};
use crate::cli::resolve::{self, Chosen};
use crate::cli::sampling;
use crate::cli::trace::Tracing;
use crate::cli::wrap::Wrap;
use crate::cli::{echo, start};
use crate::engine::batch::Batcher;
use crate::engine::{
    self, Answer, Ask, Engine, Finish, Grammar, LoadOptions, Monitor, Progress, SamplerSettings,
    Token,
};
use crate::gguf::Index;
use crate::talk::ask;
use crate::talk::chat::Conversation;
use crate::talk::speech::{Reader, Said};
use crate::talk::template::ChatTemplate;
use crate::talk::thinking::Thinking;
use crate::talk::{Role, StopWords};
use crate::units::{Bytes, Rate};

/// A loaded model and the settings of the conversation with it.
pub(crate) struct Talk {
    pub(crate) engine: Engine,
    pub(crate) batcher: Batcher,
    pub(crate) settings: SamplerSettings,
    /// What answers must fit.
    grammar: Option<Grammar>,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) interrupt: Interrupt,
    pub(crate) printer: Printer,
    pub(crate) tracing: Tracing,
    /// Instructions that came with the model, where the user gives none.
    pub(crate) system: Option<String>,
    /// What every conversation with the model begins with, as (role, text).
    begin: Vec<(String, String)>,
    /// Texts that end an answer, which came with the model.
    stops: Vec<String>,
    /// Whether the model is to think.
    thinking: Thinking,
}

/// What was said.
pub(crate) struct Reply {
    /// The text as shown.
    pub(crate) text: String,
    /// Why it ended, and what it took.
    pub(crate) answer: Answer,
}

/// What is shown while a model is loaded: how much of it is there, once that is known.
fn loading(title: String, monitor: Arc<Monitor>) -> impl Fn() -> String + Send {
    let begin = Instant::now();
    move || {
        let Progress { loaded, to_load, .. } = monitor.snapshot();
        let how_far = match to_load {
            Bytes::ZERO => format!("{} s", begin.elapsed().as_secs()),
            _ => format!("{loaded} of {to_load}"),
        };
        format!("loading {title} ... {how_far}")
    }
}

/// Loads a model under a status line.
pub(crate) fn load(
    index: Index,
    options: &LoadOptions,
    printer: &Printer,
) -> Result<Engine, engine::Error> {
    let monitor = Arc::new(Monitor::default());
    let line = loading(index.title(), Arc::clone(&monitor));
    let status = Status::start(printer, Watched::Line(Box::new(line)));
    let options = &LoadOptions { monitor: Some(monitor), ..options.clone() };
    let engine = Engine::open(Arc::new(index), options)?;
    drop(status);
    if options.vram.is_some() && engine.plan().gpu.is_none() {
        printer.warn("--vram has no effect: the CPU computes");
    }
    Ok(engine)
}

impl Talk {
    /// Loads `chosen` as the command line says.
    pub(crate) fn open(
        load: &LoadArgs,
        sample: &SampleArgs,
        chosen: Chosen,
        printer: Printer,
    ) -> anyhow::Result<Talk> {
        Talk::open_after(Interrupt::new()?, load, sample, chosen, printer)
    }

    /// The same, where Ctrl-C is heard already.
    pub(crate) fn open_after(
        interrupt: Interrupt,
        load: &LoadArgs,
        sample: &SampleArgs,
        chosen: Chosen,
        printer: Printer,
    ) -> anyhow::Result<Talk> {
        let grammar = sampling::grammar(&sample.format)?;
        for warning in grammar.iter().flat_map(|grammar| &grammar.loose) {
            printer.warn(warning);
        }
        for note in &chosen.settings.notes {
            printer.warn(note);
        }
        let tracing = Tracing::prepare(load.trace.as_deref())?;
        let options = resolve::load_options(load);
        let draft = draft::choose(load, &chosen.index, &options)?;
        let engine = load_chosen(&chosen, LoadOptions { draft, ..options }, &printer)?;
        let settings = chosen.settings;
        if let Some(note) = engine.index().note() {
            printer.warn(note);
        }
        if let Some(warning) = engine.tokenizer_warning() {
            printer.warn(warning);
        }
        printer.detail(engine.describe());
        start::introduce(&engine, &printer);
        if let Some(grammar) = &grammar {
            engine.check_grammar(grammar)?;
        }
        let batcher = engine.batcher()?;
        if let Some(who) = batcher.drafters() {
            printer.detail(format_args!("drafts by {who}"));
        }
        tracing.begin(&batcher.monitor());
        Ok(Talk {
            engine,
            batcher,
            grammar,
            settings: sampling::settings(sample, &settings),
            max_tokens: sample.usual.max_tokens.or(settings.max_tokens).map(|n| n as usize),
            system: settings.system,
            begin: settings.messages,
            stops: settings.stop,
            thinking: thinking(&sample.usual),
            interrupt,
            printer,
            tracing,
        })
    }

    /// A conversation with these instructions, and with what came with the model.
    pub(crate) fn conversation(&self, system: Option<String>) -> Conversation {
        let mut conversation = Conversation::new(system);
        for (role, text) in &self.begin {
            match role.as_str() {
                "user" => conversation.push(Role::User, text.as_str()),
                "assistant" => conversation.push(Role::Assistant, text.as_str()),
                _ => drop(conversation.system.get_or_insert_with(|| text.clone())),
            }
        }
        conversation
    }

    /// The model's chat template, with a word where it cannot be used.
    pub(crate) fn template(&self) -> anyhow::Result<ChatTemplate> {
        let mut template = self.engine.chat_template()?;
        template.think(self.thinking.clone());
        if let Some(warning) = template.warning() {
            self.printer.warn(warning);
        }
        Ok(template)
    }

    /// Writes the trace, if one was asked for; only the first time.
    pub(crate) fn end_trace(&mut self) -> anyhow::Result<()> {
        self.tracing.finish(&self.batcher.monitor(), &self.engine, &self.printer)
    }

    /// Tokens that the context holds.
    pub(crate) fn n_ctx(&self) -> usize {
        self.batcher.n_ctx()
    }

    /// Room that a prompt leaves for its answer, in tokens: what the user allows, or a quarter of the
    /// context.
    pub(crate) fn room(&self) -> usize {
        let n_ctx = self.n_ctx();
        self.max_tokens.unwrap_or(n_ctx / 4).clamp(1, (n_ctx / 2).max(1))
    }

    /// Answers `prompt` on stdout, up to `stop`, and ends the line. Of the thoughts of an answer to what was `asked`, only how long
    /// they took is shown.
    pub(crate) fn answer(
        &mut self,
        prompt: &[Token],
        stop: Option<&'static str>,
        asked: Option<&ask::Prompt>,
    ) -> anyhow::Result<Reply> {
        let monitor = self.batcher.monitor();
        self.interrupt.stops(Arc::clone(&monitor));
        let status = Status::start(&self.printer, Work::of(&self.engine, None));
        let echo = echo::off();
        let mut shown = Shown { text: String::new(), failed: None, wrap: self.printer.wrap() };
        let vocab = self.engine.vocab()?;
        let marks = asked.into_iter().flat_map(|asked| asked.dialect().marks());
        let marks = marks.filter_map(|mark| vocab.find(mark)).collect();
        let mut heard = Heard::new(asked.map(|asked| asked.reader(true)));
        let words = stop.map(str::to_owned).into_iter().chain(self.stops.iter().cloned());
        let ask = Ask {
            prompt: prompt.to_vec(),
            settings: self.settings.clone(),
            max_tokens: self.max_tokens,
            stops: StopWords::new(words),
            grammar: self.grammar.clone(),
            shown: marks,
        };
        let (printer, interrupt) = (&self.printer, &self.interrupt);
        let mut on_text = |piece: &str| {
            let (text, thought) = heard.hear(piece);
            if let Some(seconds) = thought {
                status.show(printer, || printer.dim(format_args!("(thought for {seconds:.1} s)")));
            }
            let failed = match text.is_empty() {
                true => false,
                false => status.show(printer, || shown.print(printer, &text)).is_break(),
            };
            // The interrupt may have come before the engine began to listen for it.
            if failed || interrupt.stopping() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        let answer = engine::generate(&mut self.batcher, ask, &mut on_text);
        drop((status, echo));
        let interrupted = self.interrupt.stopping();
        let _ = shown.print(&self.printer, &heard.finish());
        if heard.only_thought() {
            self.printer.dim("(it thought, and said nothing; -n allows more)");
        }
        if !shown.text.is_empty() && !shown.text.ends_with('\n') {
            let text = std::mem::take(&mut shown.text);
            let _ = shown.print(&self.printer, "\n");
            shown.text = text;
        }
        if let Some(error) = shown.failed {
            return Err(error.into());
        }
        let mut answer = answer?;
        self.engine.learn();
        self.batcher.remember_drafts();
        if interrupted {
            answer.finish = Finish::Interrupted;
        }
        Ok(Reply { text: shown.text, answer })
    }
}

/// What the flags say of thinking.
pub(crate) fn thinking(sample: &UsualSampleArgs) -> Thinking {
    let mut thinking = Thinking::default();
    match sample.think.as_deref() {
        _ if sample.no_think => thinking.wanted = Some(false),
        Some(how) => drop(thinking.set(how)),
        None => {}
    }
    thinking
}

/// An answer's text, told apart from its thoughts.
struct Heard {
    reader: Option<Reader>,
    begun: Instant,
    thinks: bool,
    said: bool,
}

impl Heard {
    fn new(reader: Option<Reader>) -> Heard {
        Heard { reader, begun: Instant::now(), thinks: false, said: false }
    }

    /// The text of a piece, and how many seconds a thought took that has ended with it.
    fn hear(&mut self, piece: &str) -> (String, Option<f32>) {
        let Some(reader) = &mut self.reader else { return (piece.to_owned(), None) };
        let said = reader.push(piece);
        self.sort(said)
    }

    fn finish(&mut self) -> String {
        let said = self.reader.as_mut().map(|reader| reader.finish(true)).unwrap_or_default();
        self.sort(said).0
    }

    fn only_thought(&self) -> bool {
        self.thinks && !self.said
    }

    fn sort(&mut self, said: Vec<Said>) -> (String, Option<f32>) {
        let (mut text, mut thought) = (String::new(), None);
        for said in said {
            match said {
                Said::Thought(_) => {
                    if !self.thinks {
                        self.begun = Instant::now();
                    }
                    self.thinks = true;
                }
                Said::Text(more) => text += &more,
                // Nobody offered tools.
                Said::Call { .. } | Said::Arguments(_) => {}
            }
        }
        if !text.is_empty() && !self.said {
            thought = self.thinks.then(|| self.begun.elapsed().as_secs_f32());
            self.said = true;
        }
        (text, thought)
    }
}

/// Loads a model with the context that came with it, if the user named none; with less where that does not fit.
pub(crate) fn load_chosen(
    chosen: &Chosen,
    typed: LoadOptions,
    printer: &Printer,
) -> Result<Engine, engine::Error> {
    let options = chosen.complete(typed.clone());
    match load(chosen.index.clone(), &options, printer) {
        Err(engine::Error::Plan { .. }) if options.ctx != typed.ctx => {
            printer.warn("the context that came with the model does not fit; -c sets another");
            load(chosen.index.clone(), &typed, printer)
        }
        loaded => loaded,
    }
}

/// Text on stdout, and whether stdout still takes any.
struct Shown {
    text: String,
    failed: Option<io::Error>,
    /// The lines of a terminal.
    wrap: Option<Wrap>,
}

impl Shown {
    fn print(&mut self, printer: &Printer, text: &str) -> ControlFlow<()> {
        if self.failed.is_none() && !text.is_empty() {
            self.failed = printer.answer(text, self.wrap.as_mut()).err();
            self.text.push_str(text);
        }
        if self.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// `12 tokens, 34.1 tokens/s; prompt 25 (13 reused) in 0.12 s; 3.38 GiB, 2.91 GB/s`.
pub(crate) fn summary(answer: &Answer) -> String {
    let Answer { tokens: said, finish, n_prompt, .. } = answer;
    if said.is_empty() && *finish == Finish::Interrupted {
        return format!("stopped after {:.1} s, while reading the prompt", answer.prompt_seconds);
    }
    let mut line = tokens(said.len());
    // Where drafts came with the prompt's pass and made most of the answer, the speed of the few others is not the answer's.
    if let Some((n, seconds)) = computed(answer).filter(|&(n, _)| n >= answer.n_first) {
        line += &format!(", {}", speed(n, seconds));
    }
    line += &format!("; prompt {n_prompt}");
    if answer.n_reused > 0 {
        line += &format!(" ({} reused)", answer.n_reused);
    }
    line += &format!(" in {:.2} s", answer.prompt_seconds);
    if answer.drafted.tried > 0 {
        line += &drafted(answer);
    }
    if answer.streamed > Bytes::ZERO {
        let seconds = answer.prompt_seconds + answer.generate_seconds;
        let rate = Rate(answer.streamed.f64() / seconds.max(1e-9));
        line += &format!("; {}, {rate}", answer.streamed);
    }
    line
}

/// Tokens of an answer that were computed after those that come with the prompt, and the seconds that they took: what its speed is.
/// None where there are none.
pub(crate) fn computed(answer: &Answer) -> Option<(usize, f64)> {
    let after = answer.tokens.len().saturating_sub(answer.n_first);
    // The token that ends an answer is computed, and not one of its own. Where drafts brought all of it, it came with them.
    let said = !answer.tokens.is_empty();
    let ended =
        said && answer.finish == Finish::Stop && (after > 0 || answer.drafted.accepted == 0);
    let n = after + usize::from(ended);
    (n > 0).then_some((n, answer.generate_seconds))
}

/// `; 5.3 tokens/pass, 43 of 60 drafted accepted`.
fn drafted(answer: &Answer) -> String {
    let engine::draft::Drafted { tried, accepted } = answer.drafted;
    #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^53")]
    let per_pass = answer.per_pass[0] as f64 / answer.per_pass[1].max(1) as f64;
    format!("; {per_pass:.1} tokens/pass, {accepted} of {tried} drafted accepted")
}

/// `1 token`, `2 tokens`.
pub(crate) fn tokens(n: usize) -> String {
    if n == 1 { "1 token".to_owned() } else { format!("{n} tokens") }
}

/// Tokens per second, with the digits that a slow machine needs.
pub(crate) fn speed(n: usize, seconds: f64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a token count is far below 2^53")]
    let rate = n as f64 / seconds.max(1e-9);
    let digits = if rate < 10.0 { 2 } else { 1 };
    format!("{rate:.digits$} tokens/s")
}
