"""Workflow and table → plan: what fits, and the words for what does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_workflow import OBJECT_INFO, prompt

from tools.evaluate.errors import EvaluationError
from tools.evaluate.plan import Plan, Workflow, read_table, read_workflow
from tools.evaluate.plan.workflow import node_types

MakePlan = Callable[..., Plan]


class TestWorkflow:
    def test_only_what_the_scores_need_is_run(self, workflow: Workflow) -> None:
        assert set(workflow.prompt) == {"1", "2", "3", "4", "5", "6"}
        assert workflow.imacs == ("6",)

    def test_without_imacs(self, write_workflow: Callable[..., Path]) -> None:
        nodes = prompt()
        del nodes["6"]
        with pytest.raises(EvaluationError, match=r"has no IMACS node.*Add IMACS behind Collect"):
            node_types(write_workflow(nodes))

    def test_without_the_result(self, write_workflow: Callable[..., Path]) -> None:
        nodes = prompt()
        del nodes["5"]["inputs"]["image"]
        with pytest.raises(EvaluationError, match=r"“Collect Attribution” \(node 5\): no image"):
            read_workflow(write_workflow(nodes), OBJECT_INFO)

    def test_unknown_nodes(self, write_workflow: Callable[..., Path]) -> None:
        nodes = prompt() | {"8": {"class_type": "Strange", "inputs": {}}}
        with pytest.raises(EvaluationError, match=r"does not know: Strange\. Install their pack"):
            read_workflow(write_workflow(nodes), OBJECT_INFO)

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"a": 1}', '"x"'])
    def test_no_workflow(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "other.json"
        path.write_text(text)
        with pytest.raises(EvaluationError, match=r"no workflow|not JSON"):
            node_types(path)

    def test_two_scores_have_their_titles(self, write_workflow: Callable[..., Path]) -> None:
        nodes = prompt()
        nodes["8"] = {**nodes["6"], "_meta": {"title": "robust"}}
        found = read_workflow(write_workflow(nodes), OBJECT_INFO)
        assert [found.prefix(node) for node in found.imacs] == ["IMACS.", "robust."]
        nodes["8"] = nodes["6"]
        with pytest.raises(EvaluationError, match="some have the same title"):
            read_workflow(write_workflow(nodes), OBJECT_INFO)


class TestTable:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("seed\n", "has no rows"),
            ("", "cannot be read as a table"),
            ("seed,,cfg\n1,2,3\n", "a column without a name"),
            ("seed,seed\n1,2\n", "two columns called seed"),
        ],
    )
    def test_tables_that_are_none(self, tmp_path: Path, text: str, words: str) -> None:
        path = tmp_path / "pairs.csv"
        path.write_text(text)
        with pytest.raises(EvaluationError, match=words):
            read_table(path)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(EvaluationError, match=r"There is no table .*none\.csv"):
            read_table(tmp_path / "none.csv")

    def test_parquet_says_the_same_as_csv(self, tmp_path: Path) -> None:
        frame = pd.DataFrame({"seed": [1, 2], "cfg": [1.5, 2.0], "name": ["a", "b"]})
        frame.to_csv(tmp_path / "pairs.csv", index=False)
        frame.to_parquet(tmp_path / "pairs.parquet")
        one, other = (read_table(tmp_path / f"pairs.{end}") for end in ("csv", "parquet"))
        assert one.row(0) == {"seed": "1", "cfg": "1.5", "name": "a"} == other.row(0)


class TestColumns:
    def test_every_way_to_name_an_input(self, make_plan: MakePlan) -> None:
        plan = make_plan(
            "reference,MASK,seed,KSampler.cfg,3.unet_name,label.stage,name\n"
            "b.png,a.png,7,2.5,two.safetensors,early,first\n"
        )
        pair = plan.pair(0)
        inputs = {node: found["inputs"] for node, found in pair.prompt.items()}
        assert pair.name == "first"
        assert inputs["4"]["seed"] == 7
        assert inputs["4"]["cfg"] == 2.5
        assert inputs["3"]["unet_name"] == "two.safetensors"
        assert inputs["1"]["image"] != inputs["2"]["image"]
        assert {path.name for path in pair.files.values()} == {"a.png", "b.png"}
        assert plan.model_columns == ["3.unet_name"]

    @pytest.mark.parametrize(
        ("column", "words"),
        [
            ("refrence", "column “refrence” is unknown.*Did you mean “reference”"),
            ("steps", "“steps” is unknown.*It could set: .*seed"),
            ("image", "“image” could set 2 inputs.*“mask.image”, “reference.image”"),
        ],
    )
    def test_columns_that_set_nothing(self, make_plan: MakePlan, column: str, words: str) -> None:
        with pytest.raises(EvaluationError, match=words):
            make_plan(f"{column}\na.png\n")

    def test_two_columns_for_one_input(self, make_plan: MakePlan) -> None:
        with pytest.raises(EvaluationError, match=r"“seed” and “4\.seed” both set seed"):
            make_plan("seed,4.seed\n1,2\n")

    @pytest.mark.parametrize(
        ("column", "cell", "words"),
        [
            ("seed", "x", "“x” is not a whole number"),
            ("seed", "1.5", "“1.5” is not a whole number"),
            ("seed", "-1", "-1 is not between 0 and 1000"),
            ("cfg", "nan", "“nan” is not finite"),
            ("add_noise", "maybe", "neither true nor false"),
            ("sampler_name", "eulr", "there is no “eulr”; there are euler"),
            ("unet_name", "three.safetensors", "there is no “three.safetensors”"),
        ],
    )
    def test_values_that_do_not_fit(
        self, make_plan: MakePlan, column: str, cell: str, words: str
    ) -> None:
        with pytest.raises(EvaluationError, match=rf"row 1, column “{column}”: .*{words}"):
            make_plan(f"{column},name\n{cell},x\n")


class TestPairs:
    def test_a_broken_picture_is_the_pairs_own_problem(self, make_plan: MakePlan) -> None:
        plan = make_plan("reference\na.png\nbroken.png\nnone.png\n")
        problems = [plan.pair(number).problem for number in range(3)]
        assert problems[0] == ""
        assert "broken.png cannot be read" in problems[1]
        assert "there is no file" in problems[2]

    def test_a_correspondence_without_points(self, make_plan: MakePlan, tmp_path: Path) -> None:
        (tmp_path / "points.csv").write_text("x,y\n0.5,0.5\n")
        plan = make_plan("reference,correspondence\na.png,points.csv\n")
        assert "no column result_x, result_y" in plan.pair(0).problem

    def test_the_key_names_all_that_figures_depend_on(
        self, make_plan: MakePlan, tmp_path: Path
    ) -> None:
        def key(row: str = "a.png,1,one.safetensors,b.png", **settings: Any) -> str:
            text = f"reference,seed,unet_name,target,name\n{row},x\n"
            return make_plan(text, **settings).pair(0).key

        usual = key()
        assert key() == usual
        others = [
            key("b.png,1,one.safetensors,b.png"),
            key("a.png,2,one.safetensors,b.png"),
            key("a.png,1,two.safetensors,b.png"),
            key("a.png,1,one.safetensors,a.png"),
            key(threads=2),
            key(comfyui="3"),
            key(lpips="alex"),
        ]
        (tmp_path / "a.png").write_bytes((tmp_path / "b.png").read_bytes())
        others.append(key())
        assert usual not in others
        assert len(set(others[:-1])) == len(others) - 1

    def test_the_name_of_a_file_does_not_matter(self, make_plan: MakePlan, tmp_path: Path) -> None:
        before = make_plan("reference\na.png\n").pair(0).key
        (tmp_path / "a.png").rename(tmp_path / "c.png")
        (tmp_path / "b.png").rename(tmp_path / "a.png")  # the workflow's own mask
        (tmp_path / "c.png").rename(tmp_path / "b.png")
        assert make_plan("reference,mask\nb.png,b.png\n").pair(0).key == before

    def test_pairs_of_one_model_come_together(self, make_plan: MakePlan) -> None:
        plan = make_plan(
            "seed,unet_name\n1,one.safetensors\n2,two.safetensors\n3,one.safetensors\n"
        )
        assert [pair.number for pair in plan.pairs()] == [1, 3, 2]
