//! The two clocks by which leases and ticks are counted, and what may go wrong with them.
//!
//! The clocks of this machine are right, and the same for all nodes. That leases hold where they are not is
//! shown by nodes that read them through a fault: each clock may go faster or slower from now on, and may
//! jump forward, as when a machine sleeps (`CLOCK_BOOTTIME` goes on, `CLOCK_MONOTONIC_RAW` stands still) or
//! NTP slews the one that it slews. None ever goes back.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// The two clocks, read at one moment. Made by hand in tests: this is where their clocks come in.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Moment {
    /// `CLOCK_MONOTONIC_RAW`: never slewed, stands still while the machine sleeps.
    pub raw: Duration,
    /// `CLOCK_BOOTTIME`: slewed, goes on while the machine sleeps.
    pub boot: Duration,
}

impl Moment {
    /// As this process sees them.
    pub fn now() -> Moment {
        faulty().lock().unwrap_or_else(PoisonError::into_inner).show(Moment::real())
    }

    fn real() -> Moment {
        let read = |clock| {
            let t = clock_gettime(clock);
            Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec.unsigned_abs() as u32)
        };
        Moment { raw: read(ClockId::MonotonicRaw), boot: read(ClockId::Boottime) }
    }

    /// Whether less than `span` has passed since `since`, by both clocks. Not if one of them went back.
    pub fn is_within(self, since: Moment, span: Duration) -> bool {
        let within = |now: Duration, since| now.checked_sub(since).is_some_and(|passed| passed < span);
        within(self.raw, since.raw) && within(self.boot, since.boot)
    }

    /// Whether `span` or more has passed since `since`, by both clocks.
    pub fn is_beyond(self, since: Moment, span: Duration) -> bool {
        self.raw >= since.raw + span && self.boot >= since.boot + span
    }
}

/// What all processes of this machine call now.
pub fn nanos() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs()
}

/// Which clocks a node goes by: anything but both is a mistake that the check of the history must find.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Trust {
    #[default]
    Both,
    Raw,
    Boot,
}

impl Trust {
    /// As an argument.
    pub fn name(self) -> &'static str {
        match self {
            Trust::Both => "both",
            Trust::Raw => "raw",
            Trust::Boot => "boot",
        }
    }
}

/// What becomes of the clocks of a node, from now on.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub struct Fault {
    /// What the clocks gain in a second, in hundredths of it.
    pub raw_percent: u32,
    pub boot_percent: u32,
    /// What `CLOCK_BOOTTIME` has gained at once: the machine has slept.
    pub slept_ms: u64,
}

impl Fault {
    /// Clocks that are right again, but for what they are ahead or late by now.
    pub const NONE: Fault = Fault { raw_percent: 100, boot_percent: 100, slept_ms: 0 };
}

/// Clocks with a fault since a moment.
struct Faulty {
    trust: Trust,
    fault: Fault,
    /// When the fault came about, by the clocks of this machine and by the faulty ones.
    since: Moment,
    shown: Moment,
}

/// Those of this process.
fn faulty() -> &'static Mutex<Faulty> {
    static FAULTY: OnceLock<Mutex<Faulty>> = OnceLock::new();
    FAULTY.get_or_init(|| {
        let now = Moment::real();
        Mutex::new(Faulty { trust: Trust::Both, fault: Fault::NONE, since: now, shown: now })
    })
}

impl Faulty {
    fn begin(&mut self, fault: Fault, now: Moment) {
        self.shown = self.both(now);
        self.shown.boot += Duration::from_millis(fault.slept_ms);
        (self.fault, self.since) = (fault, now);
    }

    fn both(&self, now: Moment) -> Moment {
        let gained = |now: Duration, since, percent| now.saturating_sub(since) * percent / 100;
        Moment {
            raw: self.shown.raw + gained(now.raw, self.since.raw, self.fault.raw_percent),
            boot: self.shown.boot + gained(now.boot, self.since.boot, self.fault.boot_percent),
        }
    }

    fn show(&self, now: Moment) -> Moment {
        let Moment { raw, boot } = self.both(now);
        match self.trust {
            Trust::Both => Moment { raw, boot },
            Trust::Raw => Moment { raw, boot: raw },
            Trust::Boot => Moment { raw: boot, boot },
        }
    }
}

/// From now on, this process goes by these clocks: said once, before any of them is read.
pub fn trust(trust: Trust) {
    faulty().lock().unwrap_or_else(PoisonError::into_inner).trust = trust;
}

/// From now on, the clocks of this process go like this.
pub fn disturb(fault: Fault) {
    faulty().lock().unwrap_or_else(PoisonError::into_inner).begin(fault, Moment::real());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(raw: u64, boot: u64) -> Moment {
        Moment { raw: Duration::from_secs(raw), boot: Duration::from_secs(boot) }
    }

    #[test]
    fn a_fault_goes_on_from_where_the_clocks_stood() {
        let mut clocks =
            Faulty { trust: Trust::Both, fault: Fault::NONE, since: at(10, 20), shown: at(10, 20) };
        assert_eq!(clocks.show(at(15, 25)), at(15, 25));
        clocks.begin(Fault { raw_percent: 50, boot_percent: 200, slept_ms: 3000 }, at(20, 30));
        assert_eq!(clocks.show(at(20, 30)), at(20, 33));
        assert_eq!(clocks.show(at(24, 34)), at(22, 41));
        clocks.begin(Fault::NONE, at(24, 34));
        assert_eq!(clocks.show(at(30, 40)), at(28, 47));
        clocks.trust = Trust::Raw;
        assert_eq!(clocks.show(at(30, 40)), at(28, 28));
        clocks.trust = Trust::Boot;
        assert_eq!(clocks.show(at(30, 40)), at(47, 47));
    }
}
