//! Tables, as text and as Markdown.

/// What is printed of a scenario.
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
    /// Lines below it.
    pub(crate) notes: Vec<String>,
}

impl Table {
    /// For a terminal: the first column stands left, the others right.
    pub(crate) fn text(&self) -> String {
        let head: Vec<_> = self.columns.iter().map(|column| (*column).to_owned()).collect();
        let lines: Vec<_> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |column: usize| lines.iter().filter_map(|line| Some(line.get(column)?.chars().count())).max();
        let widths: Vec<_> = (0..head.len()).map(|column| width(column).unwrap_or_default()).collect();
        let mut out = format!("\n{}\n", self.title);
        for line in lines {
            for (column, cell) in line.iter().enumerate() {
                let width = widths.get(column).copied().unwrap_or_default();
                out += &if column == 0 { format!("  {cell:width$}") } else { format!("  {cell:>width$}") };
            }
            out.push('\n');
        }
        self.notes.iter().for_each(|note| out += &format!("  {note}\n"));
        out
    }

    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<_> = self.columns.iter().map(|column| (*column).to_owned()).collect();
        let mut out = format!("\n### {}\n\n{}|---|{}\n", self.title, line(&head), "---:|".repeat(head.len() - 1));
        self.rows.iter().for_each(|row| out += &line(row));
        self.notes.iter().for_each(|note| out += &format!("\n{note}\n"));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_cells_stand_in_both() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let table = Table {
            title: "T".to_owned(),
            columns: vec!["peer", "n"],
            rows: vec![row(["digi", "1"]), row(["b", "200"])],
            notes: vec!["A note.".to_owned()],
        };
        assert_eq!(table.text(), "\nT\n  peer    n\n  digi    1\n  b     200\n  A note.\n");
        let markdown = "\n### T\n\n| peer | n |\n|---|---:|\n| digi | 1 |\n| b | 200 |\n\nA note.\n";
        assert_eq!(table.markdown(), markdown);
    }
}
