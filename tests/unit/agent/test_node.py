import pytest

from litho.errors import ConfigError
from litho.job import Job
from litho_agent import node
from litho_agent.boot import Settings
from litho_agent.node import Limits, check, fill

WHOLE = {"controller": "http://mgmt:3014", "task": "t1", "token": "x" * 16, "node": "n01"}


def test_a_command_line_that_says_all_that_a_claim_needs_passes():
    assert check(Settings(**WHOLE)) is None


@pytest.mark.parametrize("name", WHOLE)
def test_each_thing_that_a_claim_needs_is_missed_by_its_name(name):
    with pytest.raises(ConfigError, match=f"has no litho.{name}"):
        check(Settings(**(WHOLE | {name: ""})))


def test_a_command_line_of_another_system_misses_all_of_them_at_once():
    with pytest.raises(ConfigError) as caught:
        check(Settings())
    assert "no litho.controller and no litho.task and no litho.token and no litho.node" in caught.value.message
    assert caught.value.exit_code == 2


def test_the_agent_waits_longer_for_an_acknowledgement_than_any_restart_takes():
    limits = Limits()
    assert limits.acknowledge_s >= 600
    assert limits.claim_s >= 600
    assert limits.finish_s < limits.acknowledge_s


def test_no_wish_leaves_the_job_as_it_is():
    job = Job(action="restore", image="golden", engine="raw", then="stay")
    assert fill(job, Settings()) == job


@pytest.mark.parametrize(
    ("name", "wish", "ordered"),
    [
        ("disk", "sdb", "serial=S1"),
        ("engine", "raw", "partclone"),
        ("compress", "gzip", "none"),
        ("level", 7, 3),
        ("then", "poweroff", "stay"),
        ("fit", "grow", None),
        ("on_dirty", "raw", "repair"),
        ("on_bad_sector", "continue", None),
        ("allow", ("removable",), ("lvm",)),
    ],
)
def test_a_wish_fills_what_is_open_and_the_order_wins_where_it_says_something(name, wish, ordered):
    job = Job(action="capture", image="golden")
    assert getattr(fill(job, Settings(**{name: wish})), name) == wish
    if ordered is not None:
        said = Job(action="capture", image="golden", **{name: ordered})
        assert getattr(fill(said, Settings(**{name: wish})), name) == ordered


@pytest.mark.parametrize(
    ("ordered", "wish", "site", "engine"),
    [
        ("", "", "", ""),
        ("", "", "chunk", ""),
        ("", "", "partimage", "partimage"),
        ("", "partclone", "partimage", "partclone"),
        ("", "chunk", "auto", "chunk"),
        ("raw", "chunk", "auto", "raw"),
    ],
)
def test_the_task_says_the_engine_then_the_command_line_then_the_site_then_the_agents_rule(ordered, wish, site, engine):
    job = Job(action="capture", image="golden", engine=ordered)
    assert fill(job, Settings(engine=wish), site).engine == engine
    assert fill(Job(action="restore", image="golden"), Settings(), site).engine == ""


def test_what_and_which_image_are_never_the_kernel_command_lines_business():
    assert not {"action", "image", "version", "labels", "vcl_markers"} & set(node.FILLED)
    assert set(node.FILLED) <= set(Job.__struct_fields__)
