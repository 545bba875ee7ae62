//! Lists as tables that fit the terminal.

use std::io;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use rustix::termios::tcgetwinsize;

/// On a terminal of fewer columns a table would be columns of single letters.
const LEAST: u16 = 40;
/// Blanks between columns.
const GAP: u16 = 2;

/// The rows below the titles of their columns, no wider than the terminal: what is longer goes on in the next line of its
/// column. Nothing if standard output is no terminal, or a very narrow one.
#[must_use]
pub fn table(titles: &[&str], rows: &[Vec<String>]) -> Option<String> {
    let columns = tcgetwinsize(io::stdout()).ok()?.ws_col;
    (columns >= LEAST).then(|| within(columns, titles, rows))
}

fn within(columns: u16, titles: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    table.set_header(titles.to_vec()).add_rows(rows.iter().cloned());
    let last = titles.len().saturating_sub(1);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at == last { 0 } else { GAP }));
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_content_and_no_wider_than_the_terminal() {
        let rows = [
            vec!["beach.zip".to_owned(), "1.0 MiB".to_owned(), "2".to_owned()],
            vec!["a film with a name that is long.mkv".to_owned(), "700 B".to_owned(), "none".to_owned()],
            vec!["映画".to_owned(), "3 B".to_owned(), "1".to_owned()],
        ];
        let titles = ["NAME", "SIZE", "SHARERS"];
        let wide = "\
NAME                                 SIZE     SHARERS
beach.zip                            1.0 MiB  2
a film with a name that is long.mkv  700 B    none
映画                                 3 B      1";
        assert_eq!(within(200, &titles, &rows), wide);
        for columns in [40, 60, 80] {
            let table = within(columns, &titles, &rows);
            let widest = table.lines().map(textwrap::core::display_width).max();
            assert!(widest <= Some(columns.into()), "{table}");
            assert!(table.contains("1.0 MiB") && table.contains("long.mkv"), "{table}");
        }
    }
}
