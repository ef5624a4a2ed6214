//! Reads on threads of the engine.

use crate::sync::mpsc::{Receiver, Sender, channel};
use crate::sync::thread;
use crate::sync::thread::JoinHandle;
use crate::sync::{Arc, Mutex, PoisonError};

const THREADS: usize = 2;

type Job = Box<dyn FnOnce() + Send + 'static>;

/// A few threads, started at the first job.
#[derive(Default)]
pub(crate) struct Fetcher(Mutex<State>);

#[derive(Default)]
struct State {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    stopped: bool,
}

impl Fetcher {
    /// Runs `job` on a thread of the engine, or here when there is none to be had.
    pub(crate) fn run(&self, job: Job) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.jobs.is_none() && !state.stopped {
            state.start();
        }
        let rejected = match &state.jobs {
            Some(jobs) => jobs.send(job).err().map(|e| e.0),
            None => Some(job),
        };
        drop(state);
        if let Some(job) = rejected {
            job();
        }
    }

    /// Ends the threads once they have done what was asked of them.
    pub(crate) fn stop(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.stopped = true;
        state.jobs = None;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        for thread in threads {
            // A job may hold the last handle of the engine, and then this runs on its thread.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl State {
    fn start(&mut self) {
        let (send, receive) = channel::<Job>();
        let receive = Arc::new(Mutex::new(receive));
        for n in 0..THREADS {
            let receive = receive.clone();
            let name = format!("raftwood-read-{n}");
            if let Ok(thread) = thread::Builder::new().name(name).spawn(move || work(&receive)) {
                self.threads.push(thread);
            }
        }
        if !self.threads.is_empty() {
            self.jobs = Some(send);
        }
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            // A panic in a caller's closure ends that job, not the thread.
            Ok(job) => drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(job))),
            Err(_) => return,
        }
    }
}
