//! Draws bar charts as SVG: a group of bars for each row, ours in one colour and the peers' in another.

use std::fmt::Write as _;

use asynchat_benches::record::Figure;

const WIDTH: usize = 860;
const NAMES: usize = 330;
const BARS: usize = 330;
const LINE: usize = 22;
const OURS: &str = "#0b7285";
const PEERS: &str = "#adb5bd";

/// Draws rows of figures below a title. In each row the highest value has the longest bar, which fills the width.
pub fn draw(title: &str, rows: &[&[Figure]]) -> String {
    let mut body = String::new();
    let mut y = 40;
    text(&mut body, 12, 26, "font-weight=\"bold\" font-size=\"16\"", title);
    for figures in rows {
        let Some(first) = figures.first() else { continue };
        y += LINE;
        let heading = format!("{} ({})", first.row, first.unit);
        text(&mut body, 12, y, "font-weight=\"bold\"", &heading);
        let most = figures.iter().map(|figure| figure.value).fold(f64::MIN_POSITIVE, f64::max);
        for figure in *figures {
            y += LINE;
            let colour = if figure.ours { OURS } else { PEERS };
            let length = (figure.value / most * BARS as f64).max(1.0);
            text(&mut body, NAMES - 8, y, "text-anchor=\"end\"", &figure.competitor);
            let _ = writeln!(
                body,
                "<rect x=\"{NAMES}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/>",
                y - 13,
                LINE - 5
            );
            let ratio = figure.ratio.map(|ratio| format!(" ({ratio:.2})")).unwrap_or_default();
            let label = format!("{}{ratio}", number(figure.value));
            text(&mut body, NAMES + length as usize + 8, y, "", &label);
        }
        y += LINE / 2;
    }
    let height = y + LINE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn text(body: &mut String, x: usize, y: usize, attributes: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(body, "<text x=\"{x}\" y=\"{y}\" {attributes}>{text}</text>");
}

/// Formats a value with about three significant digits.
pub fn number(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
