//! The adapters for consensus libraries, the healing of replicas and the facade for metrics stand on the
//! crate's public face: what they need of the engine, an adapter outside of the crate has too.
//!
//! Paths are read as a user would have to write them, from the root. Of methods and fields there are only
//! names to go by: one that is nowhere public is found, one that a public type has too is not.
//! `.ci/platforms` compiles the adapters as a package of somebody else's (`tests/outside/adapters`), and
//! finds the rest.

use super::imports::all_imports;
use super::{Source, check, read, sources};
use proc_macro2::{TokenStream, TokenTree};
use std::collections::BTreeSet;
use syn::visit::{self, Visit};
use syn::{Attribute, Field, ImplItemFn, Item, ItemFn, TraitItemFn, UseTree, Visibility};

/// Modules of the crate that use its public face alone. They may use each other.
const ADAPTERS: &[&str] =
    &["healing", "metrics", "openraft_09", "openraft_010", "openraft_shared", "raft_rs"];

/// What they may use beside it: mistakes are planted in adapters too, and an ordinary build has none.
const SEAMS: &[&str] = &["planted"];

/// Names of methods that the standard library and raft have too, and of the crate only what is not public.
const OF_OTHERS: &[&str] = &[
    "all", "any", "chain", "collect", "empty", "get_mut", "insert", "is_none", "iter", "join", "load", "pop",
    "push", "set", "slice",
];

#[test]
fn adapters_use_the_public_face_alone() {
    let all = sources("src");
    let face = Face::of(&read("src/lib.rs"), &all);
    assert!(
        face.names.contains("Engine") && face.names.contains("limits"),
        "the face is read: {:?}",
        face.names
    );
    assert!(face.closed.contains("check_process") && !face.closed.contains("write"), "{:?}", face.closed);
    let adapters: Vec<&Source> = all.iter().filter(|source| is_adapter(source)).collect();
    assert!(adapters.len() > 20, "the adapters are found");
    let mut wrong: Vec<String> = adapters
        .iter()
        .flat_map(|source| violations(&source.name(), &source.module(), &source.text, &face))
        .collect();
    // A door that stands open is shut.
    let unused = OF_OTHERS.iter().filter(|name| {
        !face.hidden.contains(**name)
            || !adapters.iter().any(|source| members(&source.text).iter().any(|(_, member)| member == *name))
    });
    wrong.extend(unused.map(|name| format!("no adapter needs `{name}` in OF_OTHERS: take it out")));
    check(wrong);
}

#[test]
fn a_use_of_what_is_not_public_is_found_however_it_is_written() {
    let engine = Source {
        path: super::root().join("src/engine/mod.rs"),
        text:
            "impl Engine { pub fn write(&self) {} pub(crate) fn store(&self) {} pub(super) fn iter(&self) {} }
               pub struct Ticket { pub end: u64, pub(crate) pending: u8 }"
                .to_owned(),
    };
    let root = "pub(crate) mod engine; pub mod limits; #[doc(hidden)] pub mod internals; mod raft_rs;
                pub use engine::{Engine, Ticket as Handle}; pub(crate) use engine::Inner;";
    let face = Face::of(root, &[engine]);
    let found = |text: &str| violations("src/raft_rs/a.rs", &["raft_rs".into(), "a".into()], text, &face);
    for right in [
        "use crate::{Engine, Handle, limits::BATCH_BYTES_MAX};",
        "use super::b::C; use crate::planted::planted; use crate::healing::Healer;",
        "fn f(engine: &Engine) { engine.write(); [1].iter(); handle.end; }",
        "fn f() { crate::Engine::write(); }",
    ] {
        assert_eq!(found(right), Vec::<String>::new(), "{right}");
    }
    for wrong in [
        "use crate::engine::Engine;",
        "use crate::{Engine, engine::later::promise};",
        "use super::super::Inner;",
        "use crate::*;",
        "fn f(_: crate::Ticket) {}",
        "fn f() { say!(\"{}\", crate::internals::dump()); }",
        "fn f(engine: &Engine) { engine.write(); engine.store(); }",
        "fn f(engine: &Engine) { say!(engine.store()); }",
        "fn f() { let open = Engine::store; }",
        "fn f() { let open = crate::Engine::store; }",
        "fn f(handle: Handle) { handle.pending; }",
        "#[cfg(test)] mod tests { fn f(engine: &Engine) { engine.store(); } }",
    ] {
        let found = found(&format!("\n{wrong}"));
        assert!(found.len() == 1 && found[0].starts_with("src/raft_rs/a.rs:2: "), "{wrong}: {found:?}");
    }
}

fn is_adapter(source: &Source) -> bool {
    source.module().first().is_some_and(|module| ADAPTERS.contains(&module.as_str()))
}

/// What somebody else sees of the crate.
struct Face {
    /// The names that the root shows.
    names: BTreeSet<String>,
    /// Names of functions and fields that are shown to this crate only, and of none that anybody sees.
    hidden: BTreeSet<String>,
    /// Those of them that only this crate has.
    closed: BTreeSet<String>,
}

impl Face {
    fn of(root: &str, all: &[Source]) -> Face {
        let mut names = BTreeSet::new();
        for item in syn::parse_file(root).expect("the root parses").items {
            match item {
                Item::Mod(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => {
                    names.insert(item.ident.to_string());
                }
                Item::Use(item) if is_public(&item.vis) => shown(&item.tree, &mut names),
                _ => {}
            }
        }
        let mut members = Members::default();
        for source in all {
            members.is_adapter = is_adapter(source);
            members.visit_file(&syn::parse_file(&source.text).expect("the file parses"));
        }
        let hidden: BTreeSet<String> = members.hidden.difference(&members.shown).cloned().collect();
        let closed = hidden.iter().filter(|name| !OF_OTHERS.contains(&name.as_str())).cloned().collect();
        Face { names, hidden, closed }
    }
}

/// The names by which a `use` shows what it does.
fn shown(tree: &UseTree, names: &mut BTreeSet<String>) {
    match tree {
        UseTree::Path(path) => shown(&path.tree, names),
        UseTree::Group(group) => group.items.iter().for_each(|tree| shown(tree, names)),
        UseTree::Name(name) => drop(names.insert(name.ident.to_string())),
        UseTree::Rename(name) => drop(names.insert(name.rename.to_string())),
        UseTree::Glob(_) => {}
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("doc") && list.tokens.to_string() == "hidden",
        _ => false,
    })
}

/// Functions and fields, by who may use them.
#[derive(Default)]
struct Members {
    is_adapter: bool,
    shown: BTreeSet<String>,
    hidden: BTreeSet<String>,
}

impl Members {
    fn note(&mut self, visibility: &Visibility, name: String) {
        match visibility {
            // What an adapter has of its own it may use.
            _ if self.is_adapter => self.shown.insert(name),
            Visibility::Public(_) => self.shown.insert(name),
            Visibility::Restricted(_) => self.hidden.insert(name),
            Visibility::Inherited => false,
        };
    }
}

impl<'ast> Visit<'ast> for Members {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.note(&item.vis, item.sig.ident.to_string());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.note(&item.vis, item.sig.ident.to_string());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        self.shown.insert(item.sig.ident.to_string());
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_field(&mut self, field: &'ast Field) {
        if let Some(name) = &field.ident {
            self.note(&field.vis, name.to_string());
        }
        visit::visit_field(self, field);
    }
}

/// What a file of an adapter uses and must not.
fn violations(name: &str, module: &[String], text: &str, face: &Face) -> Vec<String> {
    let module: Vec<&str> = module.iter().map(String::as_str).collect();
    let mut wrong = Vec::new();
    for import in all_imports(&module, text, &Default::default()) {
        let (line, to) = (import.line, import.module());
        let is_own = ADAPTERS.contains(&to) || SEAMS.contains(&to);
        let is_open = |name: &String| !face.closed.contains(name);
        let is_shown = face.names.contains(to) && import.path.iter().skip(1).all(is_open);
        if !is_own && !is_shown {
            let path = ["crate"].into_iter().chain(import.path.iter().map(String::as_str));
            let path = path.collect::<Vec<_>>().join("::");
            wrong.push(format!(
                "{name}:{line}: `{path}` is not public, and an adapter uses the public face alone"
            ));
        }
    }
    for (line, member) in members(text) {
        if face.closed.contains(&member) {
            wrong.push(format!(
                "{name}:{line}: `{member}` is not public, and an adapter uses the public face alone"
            ));
        }
    }
    wrong
}

/// What stands after a dot or two colons, but in a `use` and in a path that begins in the crate or in the
/// standard library: the one is an import, the other nobody's here.
fn members(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    scan(text.parse().expect("the file has tokens"), &mut found);
    found
}

fn scan(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
    let (mut before, mut in_use, mut in_path) = (String::new(), false, false);
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                let is_member = before.ends_with("::") || before.ends_with('.') && !before.ends_with("..");
                in_use |= name == "use";
                if !before.ends_with("::") {
                    in_path = ["crate", "super", "self", "std"].contains(&name.as_str());
                }
                if is_member && !in_use && !in_path {
                    found.push((ident.span().start().line, name));
                }
                before.clear();
            }
            TokenTree::Punct(punct) => {
                in_use &= punct.as_char() != ';';
                before.push(punct.as_char());
            }
            TokenTree::Group(group) => {
                if !in_use {
                    scan(group.stream(), found);
                }
                before.clear();
            }
            TokenTree::Literal(_) => before.clear(),
        }
    }
}
