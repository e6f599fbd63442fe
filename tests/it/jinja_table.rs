//! All tests, filters and methods that Jinja2's documentation names, with values of every type: what Jinja2 makes of them, we do, too.
//! What Jinja2 refuses may be anything here. Left out, because no template of a chat has them: links in texts (`urlize`), `wordwrap`,
//! bytes (`encode`), `pprint`, and how Python prints what is undefined, safe or lazy inside of a list.

use serde_json::{Value, json};

use crate::skip::skipped;
use crate::template::{reference, rendered};

const VALUES: [&str; 28] = [
    "none",
    "nothing",
    "true",
    "false",
    "0",
    "3",
    "-2",
    "1.5",
    "-0.0",
    "''",
    "'a'",
    "'hello World, it\\'s\\n me'",
    "'<b>\"x\" & y</b>'",
    "'12'",
    "' 1.5 '",
    "'Größe 🦀'",
    "'<i>'|safe",
    "[]",
    "[3, 1, 2]",
    "['b', 'A', 'a']",
    "[none, 1, true, 'x']",
    "[[1, 2], [0]]",
    "{}",
    "{'b': 1, 'a': [2, none]}",
    "(1, 2)",
    "messages",
    "messages[0]",
    "[{'a': 1, 'b': 'x'}, {'a': 0, 'b': 'Y'}, {'a': 1, 'b': none}]",
];

const TESTS: [&str; 44] = [
    "boolean",
    "callable",
    "defined",
    "divisibleby 3",
    "divisibleby(2)",
    "eq 3",
    "== 'a'",
    "equalto none",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge 1",
    ">= 1",
    "gt 1",
    "> 1",
    "greaterthan 1",
    "in [3, 'a', none]",
    "in 'abc'",
    "in {'a': 1}",
    "integer",
    "iterable",
    "le 1",
    "<= 1",
    "lt 1",
    "< 1",
    "lessthan 1",
    "lower",
    "mapping",
    "ne 3",
    "!= 'a'",
    "none",
    "number",
    "odd",
    "sameas none",
    "sameas true",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
    "not none",
];

const FILTERS: [&str; 106] = [
    "abs",
    "attr('content')",
    "batch(2)|list",
    "batch(2, 'x')|list",
    "capitalize",
    "center",
    "center(9)",
    "count",
    "d('x')",
    "d('x', true)",
    "default('x', boolean=true)",
    "dictsort",
    "dictsort(true)",
    "dictsort(false, 'value')",
    "dictsort(reverse=true)",
    "e",
    "escape",
    "filesizeformat",
    "filesizeformat(true)",
    "first",
    "float",
    "float(2.5)",
    "forceescape",
    "format(1)",
    "groupby('a')|list",
    "groupby('b', default='z')|list",
    "indent",
    "indent(2, true)",
    "indent('> ')",
    "indent(width=1, first=true, blank=true)",
    "int",
    "int(7)",
    "int(base=16)",
    "items|list",
    "join",
    "join(', ')",
    "join('-', attribute='a')",
    "join('-', 'role')",
    "last",
    "length",
    "list",
    "lower",
    "map('upper')|list",
    "map(attribute='a')|list",
    "map(attribute='b', default='q')|list",
    "map('default', 'x')|list",
    "max",
    "max(attribute='a')",
    "max(case_sensitive=true)",
    "min",
    "min(attribute='a')",
    "reject|list",
    "reject('none')|list",
    "reject('eq', 1)|list",
    "rejectattr('a')|list",
    "rejectattr('a', 'eq', 1)|list",
    "replace('a', 'o')",
    "replace('l', 'L', 1)",
    "reverse|list",
    "round",
    "round(1)",
    "round(0, 'ceil')",
    "round(method='floor')",
    "safe",
    "select|list",
    "select('string')|list",
    "select('in', [1, 'b'])|list",
    "selectattr('a')|list",
    "selectattr('a', 'equalto', 1)|list",
    "selectattr('b', 'none')|list",
    "slice(2)|list",
    "slice(2, 'x')|list",
    "sort",
    "sort(true)",
    "sort(case_sensitive=true)",
    "sort(attribute='a')",
    "sort(reverse=true, attribute='a')",
    "string",
    "striptags",
    "sum",
    "sum(attribute='a')",
    "sum(start=10)",
    "title",
    "tojson",
    "tojson(indent=2)",
    "tojson(2)",
    "tojson(ensure_ascii=true)",
    "tojson(sort_keys=true)",
    "trim",
    "trim('<1')",
    "truncate(5)",
    "truncate(5, true)",
    "truncate(5, true, '+')",
    "truncate(5, false, '', 0)",
    "truncate(length=4, leeway=0)",
    "unique|list",
    "unique(true)|list",
    "unique(attribute='a')|list",
    "upper",
    "urlencode",
    "wordcount",
    "xmlattr",
    "xmlattr(false)",
    "string|length",
    "list|length",
    "first|string",
];

const METHODS: [&str; 77] = [
    "capitalize()",
    "casefold()",
    "center(20)",
    "center(21, '*')",
    "count('l')",
    "count(1)",
    "endswith('a')",
    "endswith(('a', 'e'))",
    "expandtabs()",
    "find('o')",
    "find('l', 4)",
    "find('zz')",
    "format(1, b=2)",
    "index('a')",
    "index(1)",
    "isalnum()",
    "isalpha()",
    "isascii()",
    "isdecimal()",
    "isdigit()",
    "isidentifier()",
    "islower()",
    "isnumeric()",
    "isprintable()",
    "isspace()",
    "istitle()",
    "isupper()",
    "join(['a', 'b'])",
    "join('xyz')",
    "ljust(20) ~ '|'",
    "ljust(20, '.')",
    "lower()",
    "lstrip()",
    "lstrip('<ha')",
    "partition(' ')",
    "partition('zz')",
    "removeprefix('h')",
    "removesuffix('e')",
    "replace('l', 'L')",
    "replace('l', 'L', 1)",
    "replace('', '-')",
    "rfind('l')",
    "rindex('a')",
    "rjust(20)",
    "rpartition(' ')",
    "rsplit()",
    "rsplit(' ', 1)",
    "rsplit(none, 1)",
    "rstrip()",
    "rstrip('e>')",
    "split()",
    "split(' ')",
    "split(',', 1)",
    "split('\\n')",
    "split(none, 1)",
    "split(maxsplit=1)",
    "split(sep=' ')",
    "splitlines()",
    "splitlines(true)",
    "startswith('h')",
    "startswith(('x', '<'))",
    "strip()",
    "strip('<>bh')",
    "swapcase()",
    "title()",
    "upper()",
    "zfill(8)",
    "get('a')",
    "get('zz')",
    "get('zz', 5)",
    "get(1)",
    "items()|list",
    "keys()|list",
    "values()|list",
    "copy()",
    "bit_length()",
    "is_integer()",
];

const OPERATORS: [&str; 25] = [
    "+ 1",
    "+ 'x<'",
    "+ [1]",
    "- 1",
    "* 2",
    "/ 2",
    "// 2",
    "% 2",
    "** 2",
    "~ 'x<'",
    "~ none",
    "== 1",
    "== 'a'",
    "!= none",
    "< 2",
    ">= 'a'",
    "in 'abc'",
    "in [3, none]",
    "and 'x'",
    "or 'x'",
    "if true else 1",
    "is defined and 1",
    "[0]",
    "['a']",
    ".a",
];

fn expressions() -> Vec<String> {
    let mut all = Vec::new();
    for value in VALUES {
        all.push(format!("{{{{ {value} }}}}"));
        all.push(format!("{{{{ not ({value}) }}}}{{{{ 'y' if ({value}) else 'n' }}}}"));
        all.push(format!("{{% for x in ({value}) %}}{{{{ x }}}};{{% else %}}-{{% endfor %}}"));
        all.push(format!("{{{{ 'p<'|safe + ({value}) }}}}"));
        all.push(format!("{{{{ '<' + ({value}) + ('>'|e) + '&' }}}}"));
        all.push(format!(
            "{{% set x = ({value}) %}}{{{{ x }}}}{{{{ [x, x] }}}}{{{{ {{'k': x}} }}}}"
        ));
        let mut add = |all_of: &[&str], between: &str| {
            all.extend(all_of.iter().map(|one| format!("{{{{ ({value}){between}{one} }}}}")));
        };
        add(&TESTS, " is ");
        add(&FILTERS, "|");
        add(&METHODS, ".");
        add(&OPERATORS, " ");
    }
    // Whether the characters that a safe text loses at its ends are escaped before depends on the version of MarkupSafe.
    let ends = [".strip('", ".lstrip('", ".rstrip('", "|trim('"];
    all.retain(|line| !(line.contains("|safe)") && ends.iter().any(|end| line.contains(end))));
    // A template that leaves out what the user says is refused.
    all.into_iter().map(|line| format!("{{{{ messages[0].content }}}}|{line}")).collect()
}

#[test]
fn tests_filters_methods_and_operators_are_jinja2s() {
    let all = expressions();
    let ours: Vec<_> = all.iter().map(|line| rendered(line)).collect();
    let asked: Vec<Value> = all
        .iter()
        .zip(&ours)
        .map(|(line, (context, _))| json!({ "template": line, "context": context }))
        .collect();
    let Some(theirs) = reference(&json!(asked)) else {
        return skipped("no python3 with jinja2 here; set AIRRUN_TEST_PYTHON to one");
    };
    let mut wrong = Vec::new();
    for ((line, (_, ours)), theirs) in all.iter().zip(&ours).zip(&theirs) {
        let Some(want) = theirs["text"].as_str() else { continue };
        if ["Undefined", "Markup("].iter().any(|of_python| want.contains(of_python)) {
            continue;
        }
        if ours.as_ref().ok().map(String::as_str) != Some(want) {
            wrong.push(format!("{line}\n  ours   {ours:?}\n  theirs {want:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}
