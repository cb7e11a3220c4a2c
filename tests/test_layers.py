#!/usr/bin/env python3
"""Breaks each rule of layers.py once, in a small tree, and expects it to be found there and nowhere else."""
import os
import tempfile
import unittest

import layers

GOOD = {
    "common/README.md": "# common\n",
    "common/base/error.h": "#include <stdint.h>\n",
    "common/base/error.c": '#include "common/base/error.h"\n#include <openssl/evp.h>\n',
    "common/record/job.h": '#include "common/base/error.h"\n',
    "common/record/job.c": '#include "proto/job.pb-c.h"\n#include <protobuf-c/protobuf-c.h>\n',
    "common/bus/bus.h": '#include "common/record/job.h"\n',
    "common/kv/kv.c": '#include <rocksdb/c.h>\n#include <sys/stat.h>\n',
    "common/kv/kv.h": "",
    "common/kv/test_kv.c": '#include <cmocka.h>\n#include "common/kv/kv.h"\n',
    "worker/README.md": "# worker\n",
    "worker/media/media.h": "",
    "worker/media/media.c": "#include <libavcodec/avcodec.h>\n",
    "worker/run/worker.h": '#include "worker/media/media.h"\n',
    "shard/README.md": "# shard\n",
    "shard/run/shard.h": '#include "common/kv/kv.h"\n',
    "cli/README.md": "# cli\n",
    "cli/main.c": '#include "shard/run/shard.h"\n#include "worker/run/worker.h"\n',
    "proto/README.md": "# proto\n",
    "tests/README.md": "# tests\n",
    "tests/e2e.c": '#include "worker/run/worker.h"\n#include <cmocka.h>\n',
}


def function(lines):
    return "int f(void)\n{\n" + "\tg();\n" * (lines - 3) + "}\n"


class Layers(unittest.TestCase):
    def violations(self, changes):
        with tempfile.TemporaryDirectory() as root:
            for path, text in {**GOOD, **changes}.items():
                os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                    file.write(text)
            return list(layers.check(root))

    def finds(self, path, text, *words):
        found = self.violations({path: text})
        self.assertEqual(len(found), 1, found)
        self.assertTrue(found[0].startswith(path), found[0])
        for word in words:
            self.assertIn(word, found[0])

    def test_a_good_tree(self):
        self.assertEqual(self.violations({}), [])

    def test_lower_layers_know_no_higher(self):
        self.finds("common/base/error.h", '#include "common/record/job.h"\n', "common/base/error.h:1:", "not below")
        self.finds("common/kv/kv.h", '\n#include "shard/run/shard.h"\n', "kv.h:2:", "not below")
        self.finds("worker/media/media.h", '#include "worker/run/worker.h"\n', "not below")
        self.finds("shard/run/shard.h", '#include "cli/x.h"\n', "not written from the root")

    def test_neighbours_know_not_each_other(self):
        self.finds("common/bus/bus.h", '#include "common/kv/kv.h"\n', "not below")

    def test_roles_never_include_each_other(self):
        self.finds("shard/run/shard.h", '#include "worker/media/media.h"\n', "roles never")
        self.finds("worker/run/worker.h", '#include "shard/run/shard.h"\n', "roles never")

    def test_outside_libraries_stay_in_their_folder(self):
        self.finds("shard/run/shard.c", "#include <rocksdb/c.h>\n", "only in common/kv")
        self.finds("worker/run/worker.c", "  #  include <libavformat/avformat.h>\n", "only in worker/media")
        self.finds("common/bus/bus.c", '#include "proto/job.pb-c.h"\n', "only in common/record")
        self.finds("cli/x.c", "#include <zmq.h>\n", "only in common/wire")
        self.finds("worker/media/io.c", "#include <curl/curl.h>\n", "only in common/fetch")
        self.finds("cli/y.c", "#include <expat.h>\n", "only in common/fetch")

    def test_unknown_libraries_are_refused(self):
        self.finds("cli/x.c", "#include <sqlite3.h>\n", "0004-dependencies")

    def test_the_test_library_is_for_tests(self):
        self.finds("cli/x.c", "#include <cmocka.h>\n", "for tests")

    def test_includes_are_written_from_the_root(self):
        self.finds("common/kv/kv.c", '#include "kv.h"\n', "from the root")
        self.finds("common/kv/kv.c", '#include "../base/error.h"\n', "from the root")

    def test_folders_have_a_place(self):
        self.finds("worker/new/x.c", '#include "common/base/error.h"\n', "worker/new is in no row")

    def test_comments_are_no_includes(self):
        self.assertEqual(self.violations({"cli/x.c": '/*\n#include <zmq.h>\n*/\n// #include "kv.h"\n'}), [])

    def test_functions_have_a_maximum(self):
        self.assertEqual(self.violations({"cli/x.c": function(100)}), [])
        self.finds("cli/x.c", "int x;\n\n" + function(101), "cli/x.c:3:", "f() has 101 lines")

    def test_functions_are_found_in_any_dress(self):
        text = (
            '#define OPEN {\n#include "common/base/error.h"\n'
            "static const int table[] = {\n\t1,\n};\n"
            "struct s {\n\tint a;\n};\n"
            'KX_PRINTF(1, 2) static void\none(const char *text, ...) KX_MUST_CHECK\n{\n\tputs("} {");\n}\n'
            "int two(int (*call)(void)) { return '{' + call(); /* } */ }\n"
        )
        self.assertEqual(list(layers.functions(text)), [("one", 9, 5), ("two", 14, 1)])

    def test_files_have_a_maximum(self):
        self.assertEqual(self.violations({"cli/x.c": "\n" * 1000}), [])
        self.finds("cli/x.c", "\n" * 1001, "1001 lines")
        self.finds("scripts/README.md", "\n" * 26, "26 lines")

    def test_folders_say_what_they_are(self):
        found = self.violations({"scripts/run": "#!/bin/sh\n"})
        self.assertEqual(len(found), 1)
        self.assertIn("scripts/README.md: missing", found[0])


if __name__ == "__main__":
    unittest.main()
