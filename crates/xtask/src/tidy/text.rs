//! Rules on the lines of one file.

/// Longest Rust file, in lines, its tests not counted.
const FILE_LINES_MAX: usize = 500;

/// Texts that must not be left in Rust code, and why. Written in halves, so that this file does
/// not find itself.
const LEFTOVERS: [(&str, &str); 6] = [
    (concat!("todo", "!("), "unfinished code"),
    (concat!("unimplemented", "!("), "unfinished code"),
    (concat!("dbg", "!("), "a debugging aid"),
    (concat!("FIX", "ME"), "an open end; finish it or file an issue"),
    (concat!("TO", "DO"), "an open end; finish it or file an issue"),
    (concat!("//! Place", "holder."), "an empty crate"),
];

/// Names the problems of one file.
pub(super) fn problems(file: &str, contents: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if is_recorded(file) {
        return problems;
    }
    let rust = file.ends_with(".rs");
    for (number, line) in contents.lines().enumerate() {
        let mut problem = |what: &str| problems.push(format!("{file}:{}: {what}", number + 1));
        // Markdown has no other way to break a line, but nobody sees it.
        if line.ends_with([' ', '\t', '\r']) {
            problem("white space at the end of the line");
        }
        if line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") {
            problem("a conflict not merged");
        }
        if rust {
            if line.contains('\t') {
                problem("a tab");
            }
            for (leftover, why) in LEFTOVERS {
                if line.contains(leftover) {
                    problem(&format!("`{leftover}`: {why}"));
                }
            }
        }
    }
    if !contents.is_empty() && !contents.ends_with('\n') {
        problems.push(format!("{file}: no line end at the end of the file"));
    }
    if contents.ends_with("\n\n") {
        problems.push(format!("{file}: an empty line at the end of the file"));
    }
    if rust && !is_test(file) {
        let lines = lines_outside_tests(contents);
        if lines > FILE_LINES_MAX {
            problems.push(format!(
                "{file}: {lines} lines outside tests, at most {FILE_LINES_MAX}: split it"
            ));
        }
    }
    problems
}

/// Whether the bytes are as some program wrote them: recordings, lock files, what we embed from
/// others.
fn is_recorded(file: &str) -> bool {
    const RECORDED: [&str; 5] =
        ["/golden/", "/transcripts/", "/fixtures/", "/corpus/", ".proptest-regressions"];
    file.ends_with(".lock")
        || file.ends_with(".svg")
        || file.starts_with("LICENSE")
        || RECORDED.iter().any(|part| file.contains(part))
}

fn is_test(file: &str) -> bool {
    file.contains("/tests/") || file.ends_with("/tests.rs") || file.contains("/benches/")
}

/// Lines before the module of tests, which closes a file.
fn lines_outside_tests(contents: &str) -> usize {
    let lines: Vec<&str> = contents.lines().collect();
    let is_tests = |pair: &[&str]| {
        pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    };
    lines.windows(2).position(is_tests).unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(file: &str, contents: &str, expected: &[&str]) {
        assert_eq!(problems(file, contents), expected);
    }

    #[test]
    fn lines_are_clean() {
        check("a.rs", "fn main() {}\n", &[]);
        check("a.md", "text \n", &["a.md:1: white space at the end of the line"]);
        check("a.rs", "\n\tx\n", &["a.rs:2: a tab"]);
        check("Makefile", "\n\tx\n", &[]);
        check("a.toml", "x", &["a.toml: no line end at the end of the file"]);
        check("a.toml", "x\n\n", &["a.toml: an empty line at the end of the file"]);
        check("a.md", "<<<<<<< ours\n", &["a.md:1: a conflict not merged"]);
        check("", "", &[]);
    }

    #[test]
    fn recordings_stay_as_they_are() {
        check("crates/wire/tests/golden/a.txt", "x \n\n", &[]);
        check("Cargo.lock", "x \n", &[]);
    }

    #[test]
    fn leftovers_are_named() {
        let line = format!("    {}1);\n", LEFTOVERS[2].0);
        assert_eq!(problems("a.rs", &line).len(), 1);
        assert_eq!(problems("a.md", &line).len(), 0);
    }

    #[test]
    fn a_file_is_as_long_as_its_code() {
        let code = "x\n".repeat(FILE_LINES_MAX);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
        check("src/a.rs", &format!("{code}{tests}"), &[]);
        check("crates/x/tests/a.rs", &format!("{code}{code}"), &[]);
        let problem = "src/a.rs: 501 lines outside tests, at most 500: split it";
        check("src/a.rs", &format!("x\n{code}{tests}"), &[problem]);
        // A test module in a file of its own does not end the code.
        check(
            "src/a.rs",
            &format!("#[cfg(test)]\nmod tests;\n{code}"),
            &["src/a.rs: 502 lines outside tests, at most 500: split it"],
        );
    }
}
