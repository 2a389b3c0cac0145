//! A figure as a line of a file. The benches write these files, and the tables of results are made from them.

use std::fmt;

/// The result of one competitor of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub row: String,
    pub competitor: String,
    /// Whether the competitor uses this crate.
    pub ours: bool,
    /// The unit of the value, such as `ns/line`.
    pub unit: String,
    pub value: f64,
    /// The throughput in MB/s.
    pub rate: Option<f64>,
    /// The name of the row's first peer, which the ratio is to. Empty if there is none.
    pub reference: String,
    /// The ratio to the reference.
    pub ratio: Option<f64>,
    pub goals: Vec<Goal>,
}

/// A ratio to a peer that is wanted, and the ratio that was reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    pub peer: String,
    pub reached: f64,
    pub wanted: f64,
}

impl Goal {
    pub fn is_met(&self) -> bool {
        // The ratio counts as rounded to two digits after the point, since most goals are given with two.
        self.reached < self.wanted + 0.005
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Goal { peer, reached, wanted } = self;
        let verdict = if self.is_met() { "met" } else { "missed" };
        write!(f, "{reached:.3} of {peer}, goal {wanted}: {verdict}")
    }
}

impl Figure {
    /// The figure as a line: its fields, separated by tabs.
    pub fn to_line(&self) -> String {
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let mut fields = vec![
            self.row.clone(),
            self.competitor.clone(),
            self.ours.to_string(),
            self.unit.clone(),
            self.value.to_string(),
            number(self.rate),
            self.reference.clone(),
            number(self.ratio),
        ];
        for Goal { peer, reached, wanted } in &self.goals {
            fields.extend([peer.clone(), reached.to_string(), wanted.to_string()]);
        }
        fields.join("\t")
    }

    /// Reads a line that [`Figure::to_line`] has written.
    pub fn from_line(line: &str) -> Option<Figure> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [row, competitor, ours, unit, value, rate, reference, ratio, goals @ ..] = &*fields
        else {
            return None;
        };
        let goal = |goal: &[&str]| match *goal {
            [peer, reached, wanted] => Some(Goal {
                peer: peer.to_owned(),
                reached: reached.parse().ok()?,
                wanted: wanted.parse().ok()?,
            }),
            _ => None,
        };
        Some(Figure {
            row: (*row).to_owned(),
            competitor: (*competitor).to_owned(),
            ours: ours.parse().ok()?,
            unit: (*unit).to_owned(),
            value: value.parse().ok()?,
            rate: rate.parse().ok(),
            reference: (*reference).to_owned(),
            ratio: ratio.parse().ok(),
            goals: goals.chunks(3).map(goal).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_read_back_from_its_line() {
        let goal = |wanted| Goal { peer: "a loop".into(), reached: 0.25, wanted };
        let figure = Figure {
            row: "lines".into(),
            competitor: "Framer, events".into(),
            ours: true,
            unit: "ns/line".into(),
            value: 1.5,
            rate: None,
            reference: "LinesCodec".into(),
            ratio: Some(0.2),
            goals: vec![goal(0.2), goal(0.3)],
        };
        assert_eq!(Figure::from_line(&figure.to_line()), Some(figure));
    }
}
