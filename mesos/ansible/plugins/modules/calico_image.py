#!/usr/bin/python
# Copyright: the authors of calico-mesos
# Apache License 2.0 (see LICENSE)
"""calico/node's image on a host, before anything is stopped for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: calico_image
short_description: Has Docker hold an image, from an archive or from its registry
description:
  - Returns the image's id, by which calico/node is run. So a new image of the same tag is told apart, and the old one can be
    gone back to.
author: The authors of calico-mesos
attributes:
  check_mode:
    support: full
    description: Nothing is changed in check mode.
options:
  name:
    description: The image's name, with tag or digest.
    type: str
    required: true
  archive:
    description: A file of this host, as C(docker save) or C(docker export) writes it; compressed or not.
    type: path
  archive_hash:
    description: The hash of that file. It is not read again while this stays and the image is there.
    type: str
    default: ""
  note:
    description: The file in which the hash is noted.
    type: path
    default: /var/cache/calico-mesos/image
  timeout:
    description: How many seconds it may take.
    type: int
    default: 900
"""

EXAMPLES = r"""
- name: Have calico/node's image
  calico_image:
    name: calico/node:v3.32.1
"""

RETURN = r"""
id:
  description: The image's id; its name in check mode where it is not there yet.
  type: str
  returned: always
"""

import os
import re
import subprocess

from ansible.module_utils.basic import AnsibleModule

# What an archive of a file system alone does not carry.
SETTINGS = ["-c", "ENV SVDIR=/etc/service/enabled", "-c", 'CMD ["start_runit"]']


class Image:
    """An image of Docker."""

    def __init__(self, module):
        self.module = module
        self.name = module.params["name"]

    def docker(self, *words):
        try:
            out = subprocess.run(
                ["docker"] + list(words),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self.module.params["timeout"],
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 124, "it did not end within %d s" % self.module.params["timeout"]
        return out.returncode, out.stdout.decode(errors="replace").strip()

    def id(self):
        code, text = self.docker("image", "inspect", "-f", "{{.Id}}", self.name)
        return text if code == 0 else ""

    def load(self, archive):
        code, text = self.docker("load", "-i", archive)
        if code != 0:
            # Not of docker save: a file system.
            code, more = self.docker("import", *SETTINGS, archive, self.name)
            if code != 0:
                self.module.fail_json(msg="calico_image_archive is %s, which Docker takes neither as an image (%s) nor as a file system (%s)" % (archive, text, more))
            return
        loaded = re.findall(r"^Loaded image(?: ID)?: (\S+)$", text, re.M)
        if self.name not in loaded:
            if len(loaded) != 1:
                self.module.fail_json(
                    msg="calico_image is %s, and calico_image_archive holds %s: set calico_image to one of them" % (self.name, ", ".join(loaded))
                )
            self.docker("tag", loaded[0], self.name)

    def pull(self):
        code, text = self.docker("pull", "-q", self.name)
        if code != 0:
            self.module.fail_json(
                msg="calico_image is %s, and Docker cannot pull it: %s; correct it, or set calico_image_archive to a file" % (self.name, text)
            )


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "archive": {"type": "path"},
            "archive_hash": {"type": "str", "default": ""},
            "note": {"type": "path", "default": "/var/cache/calico-mesos/image"},
            "timeout": {"type": "int", "default": 900},
        },
        supports_check_mode=True,
    )
    asked = module.params
    image = Image(module)
    before = image.id()
    wanted = "%s %s" % (asked["archive_hash"], asked["name"])
    fresh = bool(before) and (not asked["archive_hash"] or read(asked["note"]) == wanted)
    if fresh:
        module.exit_json(changed=False, id=before)
    diff = {"before_header": "image", "after_header": "image", "before": before + "\n", "after": asked["name"] + "\n"}
    if module.check_mode:
        module.exit_json(changed=True, id=before or asked["name"], diff=diff)
    if asked["archive_hash"]:
        image.load(asked["archive"])
    else:
        image.pull()
    after = image.id()
    if not after:
        module.fail_json(msg="calico_image is %s, and Docker does not hold it: correct it" % asked["name"])
    if asked["archive_hash"]:
        os.makedirs(os.path.dirname(asked["note"]), exist_ok=True)
        with open(asked["note"], "w", encoding="utf-8") as file:
            file.write(wanted + "\n")
        if asked["archive"].startswith(os.path.dirname(asked["note"]) + "/"):
            os.unlink(asked["archive"])
    diff["after"] = after + "\n"
    module.exit_json(changed=before != after, id=after, diff=diff)


if __name__ == "__main__":
    main()
