//! Figures as tables in Markdown.

use std::fmt;
use std::fmt::Write as _;

use asynchat_benches::record::Figure;

use crate::chart::number;

/// Writes a table for each row. Rows that compare the same two competitors share one table.
pub fn tables(page: &mut String, figures: &[Figure]) -> fmt::Result {
    let rows: Vec<&[Figure]> = figures.chunk_by(|a, b| a.row == b.row).collect();
    let same = |a: &&[Figure], b: &&[Figure]| {
        a.len() == 2
            && b.len() == 2
            && a.iter()
                .map(|figure| &figure.competitor)
                .eq(b.iter().map(|figure| &figure.competitor))
            && a[0].unit == b[0].unit
    };
    for together in rows.chunk_by(same) {
        if let [figures] = together {
            table(page, figures)?;
            continue;
        }
        let [one, other] = together[0] else { unreachable!("they are two") };
        write!(
            page,
            "\n### {} / {}\n\n| | ratio |\n|---|---:|\n",
            one.competitor, other.competitor
        )?;
        for row in together {
            writeln!(page, "| {} | {:.2} |", row[0].row, row[0].ratio.unwrap_or(f64::NAN))?;
        }
    }
    Ok(())
}

fn table(page: &mut String, figures: &[Figure]) -> fmt::Result {
    let Figure { row, unit, reference, .. } = &figures[0];
    let has_rate = figures.iter().any(|figure| figure.rate.is_some());
    let (rate_head, rate_line) = if has_rate { (" MB/s |", "---:|") } else { ("", "") };
    let against = if reference.is_empty() { String::new() } else { format!("of {reference}") };
    write!(
        page,
        "\n### {row}\n\n| | {unit} |{rate_head} {against} |\n|---|---:|{rate_line}---:|\n"
    )?;
    for figure in figures {
        let bold = if figure.ours { "**" } else { "" };
        let rate = match figure.rate {
            Some(rate) => format!(" {rate:.0} |"),
            None if has_rate => " |".into(),
            None => String::new(),
        };
        let ratio = figure.ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default();
        let (name, value) = (&figure.competitor, number(figure.value));
        writeln!(page, "| {bold}{name}{bold} | {value} |{rate} {ratio} |")?;
    }
    Ok(())
}
