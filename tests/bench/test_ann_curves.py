#!/usr/bin/env python3
"""Reading rates off a sweep of scripts/bench ann, and drawing them: what its tables and verdicts stand on."""
import math
import pathlib
import sys
import unittest
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts" / "lib"))
from bench import ann_curves  # noqa: E402

SWEEP = [(0.90, 8000.0), (0.99, 1000.0), (0.95, 5000.0), (0.94, 3000.0)]


class Curves(unittest.TestCase):
    def test_frontier_leaves_out_what_is_beaten_in_both(self):
        self.assertEqual([(0.90, 8000.0), (0.95, 5000.0), (0.99, 1000.0)], ann_curves.frontier(SWEEP))

    def test_a_measured_recall_is_its_measured_rate(self):
        for recall, rate in ann_curves.frontier(SWEEP):
            self.assertAlmostEqual(rate, ann_curves.at(SWEEP, recall))

    def test_half_way_of_what_is_missed_is_the_geometric_mean(self):
        missed = math.sqrt((1 - 0.95) * (1 - 0.99))
        self.assertAlmostEqual(math.sqrt(5000.0 * 1000.0), ann_curves.at(SWEEP, 1 - missed))

    def test_beyond_the_last_point_there_is_no_rate(self):
        self.assertIsNone(ann_curves.at(SWEEP, 0.995))
        self.assertIsNone(ann_curves.at([], 0.5))

    def test_below_the_first_point_nothing_is_made_up(self):
        self.assertEqual(8000.0, ann_curves.at(SWEEP, 0.5))

    def test_recall_1_counts_as_a_point(self):
        self.assertAlmostEqual(10.0, ann_curves.at([(0.9, 100.0), (1.0, 10.0)], 1.0))

    def test_drawing_is_xml_with_a_line_and_a_label_each(self):
        tree = xml.etree.ElementTree.fromstring(ann_curves.svg("a < b", {"kinodex": SWEEP, "peer & co": [(0.9, 2000), (0.98, 500)]}))
        lines = [one for one in tree.iter() if one.tag.endswith("polyline")]
        words = [one.text for one in tree.iter() if one.tag.endswith("text")]
        self.assertEqual(2, len(lines))
        self.assertTrue({"kinodex", "peer & co", "a < b"} <= set(words))


if __name__ == "__main__":
    unittest.main()
