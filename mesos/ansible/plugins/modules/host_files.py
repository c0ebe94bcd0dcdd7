#!/usr/bin/python
# Copyright: the authors of calico-mesos
# Apache License 2.0 (see LICENSE)
"""Many small files of a host in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Writes and removes many small files and folders in one call
description:
  - What C(copy), C(template) and C(file) do one by one, each with a connection of its own. A role of ten files is ten times as
    quick with it. Files are replaced as a whole, by a rename.
author: The authors of calico-mesos
attributes:
  check_mode:
    support: full
    description: Nothing is changed in check mode.
options:
  files:
    description: The files, in their order.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      content:
        description: The text of the file.
        type: str
      secret:
        description: The text of a file that is never shown, in place of C(content).
        type: str
      copy_of:
        description: A file of this host whose content it gets, and which is never shown, in place of C(content).
        type: path
      link:
        description: What a symbolic link leads to, in place of C(content).
        type: str
      state:
        description: V(file); V(once), which leaves a file alone that exists; V(directory); V(absent), also for what a folder contains.
        type: str
        default: file
        choices: [file, once, directory, absent]
      mode:
        description: Octal, as text; by default 0644, for folders 0755.
        type: str
      owner:
        description: Name of the owner.
        type: str
        default: root
      group:
        description: Name of the group.
        type: str
        default: root
"""

EXAMPLES = r"""
- name: Write what the service reads
  host_files:
    files:
      - {path: /etc/x, state: directory}
      - {path: /etc/x/x.conf, content: "a=1\n"}
"""

RETURN = r"""
written:
  description: The paths that have changed, or would.
  type: list
  returned: always
"""

import grp
import os
import pwd
import shutil
import stat

from ansible.module_utils.basic import AnsibleModule


def numbers(item, check_mode):
    """The ids of owner and group; in check mode a package that brings them may be missing still."""
    try:
        return pwd.getpwnam(item["owner"]).pw_uid, grp.getgrnam(item["group"]).gr_gid
    except KeyError:
        if check_mode:
            return None, None
        raise


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


class Files:
    """The files of one call."""

    def __init__(self, check_mode):
        self.check_mode = check_mode
        self.written = []
        self.diff = []

    def note(self, path, before, after):
        if path not in self.written:
            self.written.append(path)
        self.diff.append({"before_header": path, "after_header": path, "before": before, "after": after})

    def treat(self, item):
        path, state = item["path"], item["state"]
        if state == "absent":
            self.remove(path)
        elif state == "directory":
            if not os.path.isdir(path):
                self.note(path, "", "folder\n")
                if not self.check_mode:
                    os.makedirs(path, exist_ok=True)
            self.attributes(item, "0755")
        elif item["link"] is not None:
            self.link(path, item["link"])
        elif not (state == "once" and os.path.exists(path)):
            self.write(item)
            self.attributes(item, "0644")

    def remove(self, path):
        if not os.path.lexists(path):
            return
        self.note(path, "there\n", "")
        if self.check_mode:
            return
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def link(self, path, target):
        if os.path.islink(path) and os.readlink(path) == target:
            return
        self.note(path, "", "link to %s\n" % target)
        if not self.check_mode:
            new = path + ".new"
            if os.path.lexists(new):
                os.unlink(new)
            os.symlink(target, new)
            os.rename(new, path)

    def write(self, item):
        path = item["path"]
        if item["copy_of"] is not None:
            return self.copy(item)
        shown = item["secret"] is None
        text = (item["content"] if shown else item["secret"]) or ""
        if not shown and not text.endswith("\n"):
            # Its end is no secret; as one it would be hidden in all that is printed.
            text += "\n"
        before = read(path)
        if before == text.encode():
            return None
        if shown:
            self.note(path, (before or b"").decode(errors="replace"), text)
        else:
            self.note(path, "secret\n" if before else "", "another secret\n")
        return self.replace(item, text.encode())

    def copy(self, item):
        wanted, before = read(item["copy_of"]), read(item["path"])
        if wanted is None and not self.check_mode:
            raise OSError("there is no %s" % item["copy_of"])
        if before != wanted:
            self.note(item["path"], "another content\n" if before else "", "as %s\n" % item["copy_of"])
            self.replace(item, wanted)

    def replace(self, item, wanted):
        if self.check_mode:
            return
        path = item["path"]
        new = path + ".new"
        # For root's eyes only until it has its owner and mode.
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(wanted)
            uid, gid = numbers(item, False)
            os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), int(item["mode"] or "0644", 8))
            os.fsync(file.fileno())
        os.rename(new, path)

    def attributes(self, item, mode):
        path = item["path"]
        try:
            status = os.stat(path)
        except OSError:
            return  # In check mode.
        uid, gid = numbers(item, self.check_mode)
        mode = int(item["mode"] or mode, 8)
        there = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
        if uid is None or there == (uid, gid, mode):
            return
        self.note(path, "owner %d:%d, mode %04o\n" % there, "owner %d:%d, mode %04o\n" % (uid, gid, mode))
        if not self.check_mode:
            os.chown(path, uid, gid)
            os.chmod(path, mode)


def main():
    item = {
        "path": {"type": "path", "required": True},
        "content": {"type": "str"},
        "secret": {"type": "str", "no_log": True},
        "copy_of": {"type": "path"},
        "link": {"type": "str"},
        "state": {"type": "str", "default": "file", "choices": ["file", "once", "directory", "absent"]},
        "mode": {"type": "str"},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
    }
    module = AnsibleModule(
        argument_spec={"files": {"type": "list", "elements": "dict", "required": True, "options": item}},
        supports_check_mode=True,
    )
    files = Files(module.check_mode)
    for one in module.params["files"]:
        try:
            files.treat(one)
        except (OSError, KeyError) as error:
            module.fail_json(msg="cannot write %s: %s" % (one["path"], error), path=one["path"])
    result = {"changed": bool(files.written), "written": files.written}
    if module._diff:  # pylint: disable=protected-access
        result["diff"] = files.diff
    module.exit_json(**result)


if __name__ == "__main__":
    main()
