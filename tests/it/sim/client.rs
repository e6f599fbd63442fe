//! The clients of a simulated world: what they ask for, when they come, stall and go, and what they were told. What they hear is compared
//! with the right answer as it comes.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use airrun::engine::batch::{Course, Ended, Piece, Request, Room, Scored, Sink};
use airrun::engine::{Error, Finish, SamplerSettings, Token};
use airrun::source::sim::Dice;
use airrun::talk::StopWords;

use super::models::{Answer, SURE};

/// How a client behaves, by the world's clock.
#[derive(Clone, Debug)]
pub(super) enum Temper {
    /// Takes everything at once.
    Patient,
    /// Takes nothing for a while.
    Stalls(Duration, Duration),
    /// Takes nothing from then on, and does not go.
    Deaf(Duration),
    /// Goes, and if so, stops the pass that is under way.
    Leaves(Duration, bool),
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// So many tokens after a prompt with this answer.
    Answer(Arc<Answer>, usize),
    /// What cannot be answered.
    Nonsense(Vec<Token>),
}

/// What a client was told.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) number: usize,
    pub(super) ask: Ask,
    pub(super) temper: Temper,
    pub(super) full: bool,
    pub(super) gone: bool,
    /// Whether it said that it can take a piece, and has got none since.
    granted: bool,
    n_pieces: usize,
    pub(super) end: Option<Result<Ended, String>>,
    /// Whether the engine has let go of it.
    pub(super) dropped: bool,
    /// What was wrong.
    pub(super) wrong: Option<String>,
}

/// A client, for the world.
#[derive(Clone, Debug)]
pub(super) struct Client(Arc<Mutex<Heard>>);

/// Its line to the engine.
#[derive(Debug)]
struct Line(Client);

impl Client {
    pub(super) fn new(number: usize, ask: Ask, temper: Temper) -> Client {
        Client(Arc::new(Mutex::new(Heard {
            number,
            ask,
            temper,
            full: false,
            gone: false,
            granted: false,
            n_pieces: 0,
            end: None,
            dropped: false,
            wrong: None,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it asks the engine.
    pub(super) fn request(&self) -> Request {
        let (prompt, max) = match &self.lock().ask {
            Ask::Answer(answer, max) => (answer.prompt.clone(), *max),
            Ask::Nonsense(prompt) => (prompt.clone(), 4),
        };
        Request {
            prompt,
            settings: greedy(),
            grammar: None,
            max_tokens: Some(max),
            stops: StopWords::default(),
            logprobs: Some(2),
            shown: Arc::default(),
            course: Course::default(),
            sink: Box::new(Line(self.clone())),
        }
    }
}

pub(super) fn greedy() -> SamplerSettings {
    SamplerSettings { temp: 0.0, ignore_eos: true, ..SamplerSettings::default() }
}

impl Temper {
    /// One of them, of a client that comes at `from`.
    pub(super) fn random(dice: &mut Dice, from: Duration) -> Temper {
        let later = |dice: &mut Dice, most| from + Duration::from_micros(dice.roll(most));
        match dice.roll(10) {
            0..5 => Temper::Patient,
            5 | 6 => {
                let begin = later(dice, 60_000);
                Temper::Stalls(begin, begin + Duration::from_micros(dice.roll(900_000)))
            }
            7 => Temper::Deaf(later(dice, 60_000)),
            _ => Temper::Leaves(later(dice, 80_000), dice.roll(2) == 0),
        }
    }
}

impl Heard {
    /// What it does at `now`; whether it has gone just now, and stops the pass.
    pub(super) fn passed(&mut self, now: Duration) -> Option<bool> {
        match self.temper {
            Temper::Patient => None,
            Temper::Stalls(begin, end) => {
                self.full = now >= begin && now < end;
                None
            }
            Temper::Deaf(begin) => {
                self.full = now >= begin;
                None
            }
            Temper::Leaves(at, stops) => {
                let goes = now >= at && !self.gone;
                self.gone |= goes;
                goes.then_some(stops)
            }
        }
    }

    fn is_wrong(&mut self, what: impl fmt::Display) {
        self.wrong.get_or_insert_with(|| format!("client {}: {what}", self.number));
    }

    fn hear(&mut self, scored: &Scored) {
        let at = self.n_pieces;
        self.n_pieces += 1;
        let Ask::Answer(answer, max) = self.ask.clone() else {
            return self.is_wrong("nonsense was answered");
        };
        if at >= max {
            return self.is_wrong("more tokens than were asked for");
        }
        let right = &answer.scored[at].chosen;
        let apart = (right.logprob - scored.chosen.logprob).abs();
        if right.bytes != scored.chosen.bytes {
            self.is_wrong(format_args!("token {at} is another one"));
        } else if apart.is_nan() || apart > SURE {
            self.is_wrong(format_args!("token {at} is less likely than it should be by {apart}"));
        }
    }

    /// How a text has ended well.
    fn ended(&mut self, ended: &Ended) {
        let Ask::Answer(answer, max) = self.ask.clone() else {
            return self.is_wrong("nonsense was answered to its end");
        };
        let n = ended.written.len();
        if ended.written != answer.tokens[..n.min(answer.tokens.len())] {
            self.is_wrong("the tokens at the end are others");
        }
        let told = self.n_pieces;
        if n != told {
            self.is_wrong(format_args!("{n} tokens were written, {told} told"));
        }
        let full = ended.finish == Finish::ContextFull;
        if !full && (ended.finish != Finish::Length || n != max) {
            self.is_wrong(format_args!("{:?} after {n} of {max} tokens", ended.finish));
        }
        if full && ended.tokens.len() < answer.prompt.len() {
            self.is_wrong("its context is full before its prompt was read");
        }
    }
}

impl Sink for Line {
    fn room(&self) -> Room {
        let mut heard = self.0.lock();
        heard.granted |= !heard.full && !heard.gone;
        match (heard.gone, heard.full) {
            (true, _) => Room::Gone,
            (_, true) => Room::Full,
            _ => Room::Free,
        }
    }

    fn piece(&mut self, piece: Piece) {
        let mut heard = self.0.lock();
        if !std::mem::take(&mut heard.granted) {
            heard.is_wrong("a piece came that there was no room for");
        }
        if heard.end.is_some() {
            heard.is_wrong("a piece came after the end");
        }
        match &piece.scored {
            Some(scored) => heard.hear(scored),
            None => heard.is_wrong("a piece without what was asked for"),
        }
    }

    fn end(self: Box<Self>, end: Result<Ended, Error>) {
        let mut heard = self.0.lock();
        if let Ok(ended) = &end {
            heard.ended(ended);
        }
        if heard.end.replace(end.map_err(|error| error.to_string())).is_some() {
            heard.is_wrong("it ended twice");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.lock().dropped = true;
    }
}
