//! What was measured, as it is kept in results.json.

use crate::child::Figures;
use crate::environment::Environment;
use crate::log::Result;
use crate::tail::Tail;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// All of a report.
#[derive(Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) environment: Environment,
    pub(crate) measured: Measured,
    pub(crate) rows: Vec<Row>,
    /// Raftwood's latency over time.
    pub(crate) tail: Option<Tail>,
}

/// How it was measured.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// The arguments after `--`.
    pub(crate) arguments: Vec<String>,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
    pub(crate) rounds: u32,
    pub(crate) engines: Vec<EngineInfo>,
    /// Engines that were not built in.
    pub(crate) left_out: Vec<String>,
}

/// An engine of this report.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct EngineInfo {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) settings: String,
}

/// One engine at one work.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) group: String,
    pub(crate) work: String,
    pub(crate) engine: String,
    /// One for each round that came to its end.
    pub(crate) rounds: Vec<Figures>,
    /// Of each figure over the rounds.
    pub(crate) median: Figures,
    /// Why rounds did not come to their end.
    pub(crate) failures: Vec<String>,
}

impl Row {
    /// Takes the medians. What was lost in any round is lost.
    pub(crate) fn settle(&mut self) {
        let names = self.rounds.iter().flat_map(|figures| figures.keys()).cloned();
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            let mut values: Vec<f64> = self.rounds.iter().filter_map(|f| f.get(&name)).copied().collect();
            values.sort_by(f64::total_cmp);
            // Of an even number the mean of the two in the middle; of what was lost, the most.
            let (low, high) = match name == "lost" {
                true => (values.len() - 1, values.len() - 1),
                false => ((values.len() - 1) / 2, values.len() / 2),
            };
            self.median.insert(name, f64::midpoint(values[low], values[high]));
        }
    }

    pub(crate) fn get(&self, figure: &str) -> Option<f64> {
        self.median.get(figure).copied()
    }
}

impl Results {
    /// The row of an engine.
    pub(crate) fn row(&self, group: &str, work: &str, engine: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.group == group && row.work == work && row.engine == engine)
    }

    /// Entries that were acknowledged and are not there.
    pub(crate) fn lost(&self) -> Vec<&Row> {
        self.rows.iter().filter(|row| row.get("lost").is_some_and(|lost| lost > 0.0)).collect()
    }

    pub(crate) fn load(path: &Path) -> Result<Results> {
        let text = fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(fs::write(path, text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_of_the_rounds_and_what_was_lost_once_is_lost() {
        let round = |p50, lost| Figures::from([("p50_us".to_owned(), p50), ("lost".to_owned(), lost)]);
        let rounds = vec![round(3.0, 0.0), round(1.0, 2.0), round(2.0, 0.0)];
        let mut row = Row { rounds, ..Row::default() };
        row.settle();
        assert_eq!((row.get("p50_us"), row.get("lost")), (Some(2.0), Some(2.0)));
    }
}
