//! Which modules a file of the crate names, read from its syntax: in `use`, in paths, and in what a macro is
//! given; from the root, by `super`, or by a name that the root re-exports. Tests in the file count.

use proc_macro2::{TokenStream, TokenTree};
use std::collections::BTreeMap;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Item, ItemMod, ItemUse, Macro, Path, UseTree, Visibility};

/// One use of another module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Import {
    pub(crate) line: usize,
    /// From the crate's root.
    pub(crate) path: Vec<String>,
}

impl Import {
    /// The top module that it leads to.
    pub(crate) fn module(&self) -> &str {
        self.path.first().map_or("", String::as_str)
    }
}

/// What the root re-exports: by name, where it comes from.
pub(crate) type Exports = BTreeMap<String, Vec<String>>;

/// Reads the root's own file.
pub(crate) fn exports(root: &str) -> Exports {
    let mut exports = Exports::new();
    for item in syn::parse_file(root).expect("the root parses").items {
        if let Item::Use(item) = item {
            let mut paths = Vec::new();
            flatten(&item.tree, Vec::new(), &mut paths);
            exports.extend(paths.into_iter().filter_map(|path| Some((path.last()?.clone(), path))));
        }
    }
    exports
}

/// What the file of the module `module` names of other top modules.
pub(crate) fn imports(module: &[&str], text: &str, exports: &Exports) -> Vec<Import> {
    let own = module.first().copied().unwrap_or_default();
    let mut imports = all_imports(module, text, exports);
    imports.retain(|import| import.module() != own && !import.module().is_empty());
    imports
}

/// The same, and what it names of its own.
pub(crate) fn all_imports(module: &[&str], text: &str, exports: &Exports) -> Vec<Import> {
    let mut found = Found {
        module: module.iter().map(|part| (*part).to_owned()).collect(),
        exports,
        imports: Vec::new(),
    };
    found.visit_file(&syn::parse_file(text).expect("the file parses"));
    found.imports
}

struct Found<'a> {
    module: Vec<String>,
    exports: &'a Exports,
    imports: Vec<Import>,
}

impl Found<'_> {
    /// Notes a path if it leads into this crate.
    fn note(&mut self, line: usize, path: &[String]) {
        let mut at = self.module.clone();
        let mut parts = path.iter().map(String::as_str).peekable();
        match parts.peek() {
            Some(&"crate" | &"$crate") => at.clear(),
            Some(&"super" | &"self") => {}
            _ => return,
        }
        for part in parts {
            match part {
                "crate" | "$crate" | "self" => {}
                "super" => drop(at.pop()),
                name => at.push(name.to_owned()),
            }
        }
        if let Some(origin) = at.first().and_then(|name| self.exports.get(name)) {
            at.splice(..1, origin.iter().cloned());
        }
        self.imports.push(Import { line, path: at });
    }

    /// Paths in what a macro is given, which is no syntax yet.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.note(line, &std::mem::take(&mut path));
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.note(line, &std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.scan(group.stream());
                    }
                }
            }
        }
        self.note(line, &path);
    }
}

impl<'ast> Visit<'ast> for Found<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut paths = Vec::new();
        flatten(&item.tree, Vec::new(), &mut paths);
        for path in paths {
            self.note(item.span().start().line, &path);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let parts: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.note(path.span().start().line, &parts);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.scan(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    /// `pub(super)` names no module that is used.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

fn flatten(tree: &UseTree, mut before: Vec<String>, paths: &mut Vec<Vec<String>>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, paths);
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before.clone(), paths)),
        UseTree::Name(name) => {
            before.push(name.ident.to_string());
            paths.push(before);
        }
        UseTree::Rename(name) => {
            before.push(name.ident.to_string());
            paths.push(before);
        }
        UseTree::Glob(_) => paths.push(before),
    }
}
