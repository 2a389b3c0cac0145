//! A figure, as a line of a file: what the benches write, and the results are made of.

use std::fmt;

/// What one competitor of a row came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub row: String,
    pub competitor: String,
    /// Whether the competitor uses this crate.
    pub ours: bool,
    /// Such as `ns/line`.
    pub unit: String,
    pub value: f64,
    /// In MB/s.
    pub rate: Option<f64>,
    /// The row's first peer; empty if there is none.
    pub reference: String,
    /// The value in parts of the reference's.
    pub ratio: Option<f64>,
    pub goals: Vec<Goal>,
}

/// A ratio to a peer that is wanted, and the one that was reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    pub peer: String,
    pub reached: f64,
    pub wanted: f64,
}

impl Goal {
    pub fn is_met(&self) -> bool {
        // As precise as the goals are given.
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
    /// Fields with tabs between them.
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

    /// Reads what [`Figure::to_line`] has written.
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
