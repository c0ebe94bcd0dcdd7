#!/usr/bin/env python3
# Copyright: the authors of calico-mesos
# Apache License 2.0 (see LICENSE)
"""Writes the tables of variables in the roles' READMEs from meta/argument_specs.yml.

    scripts/readme.py            writes them
    scripts/readme.py --check    ends with 1, and names the file, where one is out of date

It also compares the specs with defaults/main.yml: the same variables, the same defaults.
"""

import pathlib
import re
import sys

import yaml

HERE = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- variables: written by scripts/readme.py -->", "<!-- end of variables -->"


def plain(text):
    """Ansible's marks of names and values as Markdown."""
    texts = text if isinstance(text, list) else [text]
    joined = " ".join(" ".join(part.split()) for part in texts)
    return re.sub(r"[CVO]\(([^)]*(?:\([^)]*\))?[^)]*?)\)", lambda match: "`%s`" % match.group(1).replace("=absent", ": absent"), joined)


def shown(value):
    if value in ("", [], {}):
        return "empty"
    if isinstance(value, bool):
        return "`%s`" % str(value).lower()
    if isinstance(value, list):
        return "`[%s]`" % ", ".join(map(str, value))
    if isinstance(value, dict):
        return "`{%s}`" % ", ".join("%s: %s" % pair for pair in value.items())
    return "`%s`" % value


def table(options):
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, option in options.items():
        text = plain(option["description"])
        if "choices" in option:
            text += " One of %s." % ", ".join("`%s`" % one for one in option["choices"])
        lines.append("| `%s` | %s | %s |" % (name, shown(option.get("default", "")).replace("|", "\\|"), text.replace("|", "\\|")))
    return "\n".join(lines)


def compared(role, options):
    """Where specs and defaults differ."""
    defaults = yaml.safe_load((HERE / "roles" / role / "defaults/main.yml").read_text())
    problems = ["roles/%s: %s is only in one of argument_specs.yml and defaults/main.yml" % (role, name) for name in set(defaults) ^ set(options)]
    for name in sorted(set(defaults) & set(options)):
        if defaults[name] != options[name].get("default"):
            problems.append("roles/%s: the default of %s is %r and %r" % (role, name, defaults[name], options[name].get("default")))
    return problems


def main():
    check, problems = sys.argv[1:] == ["--check"], []
    for role in ("etcd", "calico"):
        spec = yaml.safe_load((HERE / "roles" / role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]
        problems += compared(role, spec["options"])
        readme = HERE / "roles" / role / "README.md"
        text = readme.read_text()
        before, rest = text.split(BEGIN)
        new = before + BEGIN + "\n\n" + table(spec["options"]) + "\n\n" + END + rest.split(END)[1]
        if new != text and check:
            problems.append("%s is out of date: run scripts/readme.py" % readme.relative_to(HERE))
        elif new != text:
            readme.write_text(new)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
