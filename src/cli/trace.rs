//! `--trace FILE`: the pipeline as recorded by `stream`, written at the end: as a page that draws it, or as JSON for Perfetto.
//! The file appears complete or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::exit::Failure;
use crate::cli::printer::Printer;
use crate::engine::{Engine, Monitor};
use crate::files;

/// The page; the trace takes the place of the mark. Without one it asks for a file.
const PAGE: &str = include_str!("trace.html");
const MARK: &str = "/*TRACE*/null/*TRACE*/";

/// A trace that was asked for and is not yet written; or nothing.
#[derive(Debug)]
pub(crate) struct Tracing(Option<Target>);

/// Where it goes.
#[derive(Debug)]
struct Target {
    /// As the user wrote it.
    shown: PathBuf,
    page: bool,
}

impl Tracing {
    /// Tries the file, so that what is wrong with it is said before a model is loaded.
    ///
    /// # Errors
    ///
    /// Names with another ending, places that cannot be written to.
    pub(crate) fn prepare(path: Option<&Path>) -> anyhow::Result<Tracing> {
        let Some(path) = path else { return Ok(Tracing(None)) };
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        let page = match extension.as_deref() {
            Some("html" | "htm") => true,
            Some("json") => false,
            _ => {
                return Err(Failure::error(
                    format!("trace '{}': its ending does not tell its kind", path.display()),
                    "end it in .html for a page that draws it, or in .json for ui.perfetto.dev",
                ));
            }
        };
        let target = Target::find(path, page).map_err(|error| unwritable(path, &error))?;
        Ok(Tracing(Some(target)))
    }

    /// Records from now on, if a trace was asked for.
    pub(crate) fn begin(&self, monitor: &Monitor) {
        if self.0.is_some() {
            monitor.begin_trace();
        }
    }

    /// Writes what was recorded; only the first time.
    ///
    /// # Errors
    ///
    /// Those of the file.
    pub(crate) fn finish(
        &mut self,
        monitor: &Monitor,
        engine: &Engine,
        printer: &Printer,
    ) -> anyhow::Result<()> {
        let (Some(target), Some(trace)) = (self.0.take(), monitor.trace()) else {
            return Ok(());
        };
        let dropped = trace.dropped();
        let about = json!({
            "model": engine.index().name(),
            "engine": engine.describe(),
            "dropped_events": dropped,
        });
        let mixtures = monitor.experts().map(|watch| watch.names()).unwrap_or_default();
        let mut write =
            |out: &mut dyn Write| trace.write_json(monitor.units(), &mixtures, &about, out);
        target.write(&mut write).map_err(|error| unwritable(&target.shown, &error))?;
        let shown = target.shown.display();
        if dropped > 0 {
            printer.warn(format_args!("trace '{shown}': the last {dropped} events are left out"));
        }
        printer.dim(format_args!("trace written to '{shown}'"));
        Ok(())
    }
}

impl Target {
    /// Finds out whether it can be written to; leaves nothing behind, however the program ends.
    fn find(path: &Path, page: bool) -> io::Result<Target> {
        files::check(path)?;
        Ok(Target { shown: path.to_owned(), page })
    }

    /// Writes the trace that `json` renders, with the page around it if it is to be one.
    fn write(&self, json: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        files::write(&self.shown, |file| self.render(file, json))
    }

    fn render(
        &self,
        file: &mut File,
        json: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = BufWriter::new(file);
        if self.page {
            let (head, tail) = PAGE.split_once(MARK).unwrap_or((PAGE, ""));
            out.write_all(head.as_bytes())?;
            json(&mut InScript(&mut out))?;
            out.write_all(tail.as_bytes())?;
        } else {
            json(&mut out)?;
        }
        out.flush()
    }
}

/// JSON on its way into a script: `<` only occurs inside of strings, where it may be written so that no tag ends the script.
struct InScript<'a, W: Write>(&'a mut W);

impl<W: Write> Write for InScript<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut parts = bytes.split(|&b| b == b'<');
        self.0.write_all(parts.next().unwrap_or_default())?;
        for part in parts {
            self.0.write_all(b"\\u003c")?;
            self.0.write_all(part)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn unwritable(path: &Path, error: &io::Error) -> anyhow::Error {
    Failure::error(
        format!("cannot write trace '{}': {error}", path.display()),
        "give a file in a folder that exists and is yours",
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(path: &Path) {
        let tracing = Tracing::prepare(Some(path)).unwrap();
        let target = tracing.0.unwrap();
        target.write(&mut |out| out.write_all(b"{\"name\":\"</script>\"}")).unwrap();
    }

    #[test]
    fn files_are_complete_and_scratch_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let names = || fs::read_dir(dir.path()).unwrap().count();
        let (json, page) = (dir.path().join("t.json"), dir.path().join("t.HTML"));
        fs::write(&json, "old").unwrap();
        write(&json);
        assert_eq!(fs::read_to_string(&json).unwrap(), "{\"name\":\"</script>\"}");
        write(&page);
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.contains("{\"name\":\"\\u003c/script>\"}"));
        assert!(!text.contains(MARK));
        assert_eq!(names(), 2);

        Tracing::prepare(Some(&dir.path().join("unfinished.json"))).unwrap();
        assert_eq!(names(), 2);
        let target = Tracing::prepare(Some(&json)).unwrap().0.unwrap();
        assert!(target.write(&mut |_| Err(io::ErrorKind::StorageFull.into())).is_err());
        assert_eq!(fs::read_to_string(&json).unwrap(), "{\"name\":\"</script>\"}");
        assert_eq!(names(), 2);
    }

    #[test]
    fn what_cannot_be_written_is_said_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["t", "t.txt", "no/t.json", "..", ""] {
            let path = dir.path().join(name);
            assert!(Tracing::prepare(Some(&path)).is_err(), "{name}");
        }
        fs::create_dir(dir.path().join("d.json")).unwrap();
        assert!(Tracing::prepare(Some(&dir.path().join("d.json"))).is_err());
        assert!(Tracing::prepare(None).unwrap().0.is_none());
        assert!(PAGE.contains(MARK));
    }
}
