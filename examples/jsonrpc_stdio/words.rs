//! What a word is, and how many there are.

/// Runs of letters and digits, of any script.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character| !is_part(character)).filter(|word| !word.is_empty())
}

/// The word at a column of a line, and the columns where it begins and ends. They are counted as in LSP, in units of
/// UTF-16; a column behind the end counts as the end.
pub(crate) fn word_at(line: &str, column: usize) -> Option<(&str, usize, usize)> {
    let mut units = 0;
    let mut at = line.len();
    for (index, character) in line.char_indices() {
        if units >= column {
            at = index;
            break;
        }
        units += character.len_utf16();
    }
    let (before, behind) = line.split_at(at);
    let before = &before[before.trim_end_matches(is_part).len()..];
    let behind = &behind[..behind.len() - behind.trim_start_matches(is_part).len()];
    let word = &line[at - before.len()..at + behind.len()];
    let length = |text: &str| text.encode_utf16().count();
    (!word.is_empty()).then(|| (word, units - length(before), units + length(behind)))
}

fn is_part(character: char) -> bool {
    character.is_alphanumeric()
}
