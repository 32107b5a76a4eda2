//! What the documentation names is there: links, anchors, paths, commands, tests.
//!
//! A name in prose outlives the thing that it names, and no compiler sees it. The tests here read every Markdown file of
//! the workspace and look each name up.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::CommandFactory;

use crate::{Cli, command::root};

/// A Markdown file, and its lines with whether each is prose (not in a fenced block).
struct Page {
    path: PathBuf,
    lines: Vec<(bool, String)>,
}

impl Page {
    fn read(path: PathBuf) -> Self {
        let mut fenced = false;
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|line| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            (!fenced && !fence, line.to_owned())
        });
        Self { lines: lines.collect(), path }
    }

    fn prose(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter(|(prose, _)| *prose).map(|(_, line)| line.as_str())
    }

    /// What the links of the prose lead to.
    fn links(&self) -> impl Iterator<Item = &str> {
        let ends = |line| pieces(line, "](").filter_map(|piece| piece.split_once(')'));
        self.prose().flat_map(ends).map(|(link, _)| link)
    }

    /// The text of the code spans.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.prose().flat_map(|line| line.split('`').skip(1).step_by(2))
    }

    /// As a renderer makes them of headings: lower case, spaces to hyphens, and no punctuation.
    fn anchors(&self) -> Vec<String> {
        let headings = self.prose().filter(|line| line.starts_with('#'));
        let slug = |heading: &str| {
            let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            text.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
        };
        headings.map(slug).collect()
    }

    fn named(&self) -> String {
        self.path.strip_prefix(root()).unwrap().display().to_string()
    }
}

/// What follows each `mark`.
fn pieces<'l>(line: &'l str, mark: &'static str) -> impl Iterator<Item = &'l str> {
    line.match_indices(mark).map(move |(at, _)| &line[at + mark.len()..])
}

fn pages() -> Vec<Page> {
    fn collect(folder: &Path, pages: &mut Vec<Page>) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                collect(&path, pages);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(Page::read(path));
            }
        }
    }
    let mut pages = Vec::new();
    collect(&root(), &mut pages);
    assert!(pages.iter().any(|page| page.named() == "docs/src/faults.md"), "the book is read");
    pages
}

/// What is wrong with a link, if anything is.
fn broken(page: &Page, link: &str) -> Option<String> {
    if link.contains("://") || link.contains("::") {
        return None; // another site; an item that rustdoc looks up
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => page.path.clone(),
        path => page.path.parent().unwrap().join(path),
    };
    if !target.exists() {
        return Some(format!("{}: {link} is not there", page.named()));
    }
    let found = anchor.is_empty() || Page::read(target).anchors().iter().any(|known| known == anchor);
    (!found).then(|| format!("{}: {link} has no such heading", page.named()))
}

/// Whether a code span names a file or a folder of the workspace.
fn is_path(code: &str) -> bool {
    const ENDS: [&str; 7] = [".rs", ".md", ".toml", ".txt", ".svg", ".asm", "/"];
    let plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c));
    plain && code.contains('/') && ENDS.iter().any(|end| code.ends_with(end)) && !code.starts_with('/')
}

/// In the workspace, beside the page or in the sources beside it, or in a crate: the page's prose says in which.
fn exists(page: &Page, path: &str) -> bool {
    let folders =
        |parent: &str| fs::read_dir(root().join(parent)).unwrap().flatten().map(|entry| entry.path());
    let beside = page.path.parent().unwrap();
    let mut places = vec![root(), beside.to_path_buf(), beside.join("src")];
    places.extend(folders("crates").chain(folders("examples")));
    path.starts_with("target/") || places.iter().any(|place| place.join(path).exists())
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let all: Vec<_> = pages.iter().flat_map(|page| page.links().map(move |link| (page, link))).collect();
    assert!(all.len() > 30, "only {} links: the search for them is broken", all.len());
    let broken: Vec<String> = all.into_iter().filter_map(|(page, link)| broken(page, link)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn paths_exist() {
    let pages = pages();
    let all: Vec<_> = pages
        .iter()
        .flat_map(|page| page.code().filter(|code| is_path(code)).map(move |path| (page, path)))
        .collect();
    assert!(all.len() > 10, "only {} paths: the search for them is broken", all.len());
    let missing: Vec<_> = all
        .iter()
        .filter(|(page, path)| !exists(page, path))
        .map(|(page, path)| format!("{}: {path}", page.named()))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn commands_are_there() {
    let cli = Cli::command();
    let is_there = |mark: &str, name: &str| match mark {
        "cargo xtask " => cli.find_subcommand(name).is_some(),
        "--example " => root().join(format!("examples/host/{name}.rs")).exists(),
        _ => ["", "/main"].iter().any(|end| root().join(format!("benches/benches/{name}{end}.rs")).exists()),
    };
    let mut missing = Vec::new();
    for page in pages() {
        for (mark, line) in ["cargo xtask ", "--example ", "--bench "]
            .iter()
            .flat_map(|mark| page.lines.iter().map(move |l| (mark, l)))
        {
            for piece in pieces(&line.1, mark) {
                let name =
                    piece.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c)).next().unwrap();
                if !is_there(mark, name) {
                    missing.push(format!("{}: {mark}{name}", page.named()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The table of faults names cases of the conformance suite; `*` stands for the rest of a name.
#[test]
fn the_tests_for_faults_are_there() {
    let faults = Page::read(root().join("docs/src/faults.md"));
    let suite: String = fs::read_dir(root().join("crates/frame-testkit/src/conformance"))
        .unwrap()
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let cells = faults.prose().filter_map(|line| line.trim_end_matches('|').rsplit('|').next());
    let names: Vec<&str> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(|name| name.trim_start_matches("conformance::"))
        .filter(|name| name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || "_*".contains(c)))
        .collect();
    assert!(names.len() > 8, "only {names:?}: the search for them is broken");
    let missing: Vec<_> = names
        .into_iter()
        .filter(|name| match name.strip_suffix('*') {
            Some(start) => !suite.contains(&format!("fn {start}")),
            None => !suite.contains(&format!("fn {name}(")) && !suite.contains(&format!("fn {name}<")),
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
