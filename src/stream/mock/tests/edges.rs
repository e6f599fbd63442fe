//! Passes that are several graphs, readers that die, and weights that somebody else asks for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;
use crate::source::ReadError;
use crate::stream::{Error, StreamDevice};

/// Blocks of two matrices, one after the other.
fn blocks(n: usize, home: Home) -> Shape {
    Shape {
        units: vec![2; n],
        order: (0..n).collect(),
        homes: vec![home; n],
        views: false,
        quantised: false,
        n_slots: 2,
        staging: Staging { chunk: Bytes(8192), n_buffers: 4 },
        passes: 0,
    }
}

/// Copies go on while something else computes a part of the pass: nothing waits for them at the end of a graph.
#[test]
fn copies_hide_behind_what_is_computed_between_graphs() {
    const BLOCKS: usize = 16;
    /// Blocks of one graph; what comes between takes as long as copying one of them. (seconds)
    const PART: usize = 2;
    const BETWEEN: f64 = 1.0;
    let block = 2.0 * 4.0 * (WIDTH * WIDTH) as f64;
    let shape = blocks(BLOCKS, Home::Ram);
    let mock = Mock::new(Behaviour { costs: (1.0 / block, 0.01), ..Behaviour::default() });
    let model = Model::new(&shape, &mock, &mut Dice(7));
    let mut exec = exec(&model, &shape, &mock, None);
    for pass in 0..4 {
        let begin = mock.now();
        model.answer(pass, |graph| {
            let part = graph.n_nodes() * PART / BLOCKS;
            for first in (0..graph.n_nodes()).step_by(part) {
                let mut view = graph.view(first..first + part);
                // SAFETY: a view of a valid graph, alive during the call.
                exec.compute(&unsafe { Graph::from_raw(NonNull::from(&mut view)) }).unwrap();
                lock(&mock.referee()).step(HOST, BETWEEN, &[]);
            }
            exec.synchronize();
        });
        let took = mock.now() - begin;
        let limit = 1.03 * BLOCKS as f64 + 2.0;
        assert!(pass == 0 || took <= limit, "{took} s of {limit} s");
    }
    drop(exec);
    assert!(mock.reports().is_empty(), "{:?}", mock.reports());
}

/// Whoever looks sees one pass, of as many runs as the one before, whatever graphs it is.
#[test]
fn progress_goes_on_over_the_graphs_of_a_pass() {
    let shape = blocks(8, Home::Ram);
    let mock = Mock::new(Behaviour::default());
    let model = Model::new(&shape, &mock, &mut Dice(7));
    let source = LateSource::new(&model.file, &mock, None);
    let config = config(&model, &shape, &mock, Arc::new(source));
    let monitor = config.monitor.clone();
    let mut exec = exec_from(&model, config);
    for pass in 0..3 {
        let mut seen = Vec::new();
        model.answer(pass, |graph| {
            let part = graph.n_nodes() / 4;
            for first in (0..graph.n_nodes()).step_by(part) {
                let mut view = graph.view(first..first + part);
                // SAFETY: a view of a valid graph, alive during the call.
                exec.compute(&unsafe { Graph::from_raw(NonNull::from(&mut view)) }).unwrap();
                seen.push((monitor.snapshot().block, monitor.snapshot().n_blocks));
            }
            exec.synchronize();
        });
        monitor.passed(1, Instant::now());
        assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "{seen:?}");
        let last = seen[3];
        assert!(last.0 == last.1 && (pass == 0 || seen.iter().all(|s| s.1 == last.1)), "{seen:?}");
    }
}

/// A source that dies with a request: whoever waits for it never hears of it again, and the memory is gone.
#[derive(Debug)]
struct Mortal {
    inner: LateSource,
    /// Requests until then.
    left: AtomicUsize,
    /// What comes of the requests from then on, if not nothing.
    error: Option<ReadError>,
}

impl WeightSource for Mortal {
    fn request(&self, extents: Arc<[Extent]>, buf: HostBuf) -> Ticket {
        let lives = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lives).is_ok() {
            return self.inner.request(extents, buf);
        }
        let (completion, ticket) = Ticket::new();
        if let Some(error) = &self.error {
            completion.complete(buf, Err(error.clone()));
        }
        ticket
    }

    fn describe(&self) -> String {
        "mortal".to_owned()
    }
}

/// Nothing waits for what will never come, and each pass says why.
#[test]
fn readers_that_die_with_their_buffers_end_each_pass() {
    let (tell, told) = channel();
    // On a thread of its own: what hangs is to fail.
    std::thread::spawn(move || {
        for home in [Home::Disk, Home::Ram] {
            for left in 0..6 {
                let shape = blocks(4, home);
                let mock = Mock::new(Behaviour::default());
                let model = Model::new(&shape, &mock, &mut Dice(7));
                let inner = LateSource::new(&model.file, &mock, None);
                let source = Mortal { inner, left: AtomicUsize::new(left), error: None };
                let mut exec = exec_from(&model, config(&model, &shape, &mock, Arc::new(source)));
                for pass in 0..3 {
                    model.answer(pass, |graph| {
                        let ended = exec.compute(graph);
                        exec.synchronize();
                        tell.send((home, left, pass, ended)).unwrap();
                    });
                }
            }
        }
    });
    for _ in 0..2 * 6 * 3 {
        let heard = told.recv_timeout(Duration::from_secs(60));
        let (home, left, pass, ended) = heard.expect("a pass that ends");
        let stopped = matches!(ended, Err(Error::Read { error: ReadError::Stopped, .. }));
        assert!(stopped, "{home:?}, {left}, pass {pass}: {ended:?}");
    }
}

/// What a device computes with bytes that could not be read is worth nothing: it says so with the next pass.
#[test]
fn weights_that_cannot_be_read_elsewhere_are_no_zeros() {
    for fails in [false, true] {
        let shape = blocks(2, Home::Disk);
        let mock = Mock::new(Behaviour::default());
        let model = Model::new(&shape, &mock, &mut Dice(7));
        let error = ReadError::Truncated { path: "model".to_owned(), offset: 7 };
        let inner = LateSource::new(&model.file, &mock, None);
        let left = AtomicUsize::new(if fails { 0 } else { 100 });
        let source = Arc::new(Mortal { inner, left, error: Some(error) });
        let device = StreamDevice::new(config(&model, &shape, &mock, source)).unwrap();
        let mut got = vec![0_u8; 4 * (WIDTH * WIDTH) as usize];
        // SAFETY: tensors like the model's first one, in a buffer of the device, all freed before it.
        let want = unsafe {
            let context = context(1);
            let tensor = sys::ggml_new_tensor_2d(context, sys::GGML_TYPE_F32, WIDTH, WIDTH);
            sys::ggml_set_name(tensor, c"0".as_ptr());
            let kind = device.weights().0.as_ptr();
            let buffer = sys::ggml_backend_alloc_ctx_tensors_from_buft(context, kind);
            assert!(!buffer.is_null());
            sys::ggml_backend_tensor_get(tensor, got.as_mut_ptr().cast(), 0, got.len());
            sys::ggml_backend_buffer_free(buffer);
            sys::ggml_free(context);
            let first = model.weights[0];
            std::slice::from_raw_parts((*first).data.cast::<u8>(), got.len())
        };
        match device.take_error() {
            None => assert!(!fails && got == want),
            Some(error) => assert!(fails && error.to_string().contains("truncated"), "{error}"),
        }
    }
}
