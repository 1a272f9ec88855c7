"""xCAT's noderange grammar, one rule a row; the rows are what a running xcatd 2.19 answered, or its source says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho.errors import LithoError, NotFoundError, UsageError
from litho_controller.noderange import Universe, expand, inline_files, literal
from support.pace import Moment


class Files:
    """Files in memory, behind the same protocol as those of the machine."""

    def __init__(self, files):
        self.files = files

    def read(self, path):
        return self.files.get(path)


NODES = {f"n{i:02}": ("all", "compute", "rack1" if i <= 5 else "rack2") for i in range(1, 11)} | {
    "f1n1": ("all", "frames"),
    "f1n2": ("all", "frames"),
    "f2n1": ("all", "frames"),
    "f2n2": ("all", "frames"),
    "node8": ("all",),
    "node9": ("all",),
    "node10": ("all",),
    "a-b-c": ("all", "odd"),
    "x1.site": ("all", "odd"),
    "x2.site": ("all", "odd"),
    "n19": ("single",),
    "compute1": (),
    "frames-1": ("rack9",),
}
COLUMNS = {
    ("nodetype", "os"): {"n01": "image", "n02": "image", "n03": "rhels9"},
    ("nodetype", "profile"): {"n01": "golden-1", "n02": "golden-2"},
    ("nodehm", "mgt"): {"n01": "ipmi", "n02": "ipmi"},
}
DYNAMIC = {"imaged": ["n01", "n02"], "rack1": ["n09"], "nobody": []}
FILES = {
    "/srv/list": "n01\n# n02\n^/etc/passwd\nn03 the third\nn04:comment\nn05\tcomment\n\nrack2,-n10\n",
    "/srv/minus": "n01-n03\n-n02\n",
}


def universe(**changes):
    settings = {
        "dynamic": DYNAMIC.get,
        "empty_groups": ("vacant",),
        "column": lambda table, column: COLUMNS.get((table, column)),
        "files": Files(FILES),
    }
    return Universe(NODES, **(settings | changes))


def n(*numbers):
    return [f"n{number:02}" for number in numbers]


RULES = [
    # names and lists
    ("n01", n(1)),
    ("n02,n01,n02", n(1, 2)),
    ("'n01',\"n02\"", n(1, 2)),
    (",n01,,n02,", n(1, 2)),
    ("", []),
    ("a-b-c", ["a-b-c"]),
    ("frames-1", ["frames-1"]),
    # groups: a node wins over a group, a dynamic group over a static one, a defined group may be empty
    ("rack2", n(6, 7, 8, 9, 10)),
    ("rack1", n(9)),
    ("imaged", n(1, 2)),
    ("nobody", []),
    ("vacant", []),
    ("frames", ["f1n1", "f1n2", "f2n1", "f2n2"]),
    ("rack1-rack2", n(6, 7, 8, 9, 10)),
    # sequences
    ("n01-n03", n(1, 2, 3)),
    ("n01:n03", n(1, 2, 3)),
    ("n08-n10", n(8, 9, 10)),
    ("n03-n03", n(3)),
    ("f1n1-f1n2", ["f1n1", "f1n2"]),
    ("f1n2-f2n2", ["f1n2", "f2n2"]),
    ("x1.site-x2.site", ["x1.site", "x2.site"]),
    ("x1.site:x2.site", ["x1.site", "x2.site"]),
    # brackets
    ("n[01-03]", n(1, 2, 3)),
    ("n[01:03]", n(1, 2, 3)),
    ("n[01,03-04,09:10]", n(1, 3, 4, 9, 10)),
    ("x[1-2].site", ["x1.site", "x2.site"]),
    ("f[1-2]n[1-2]", ["f1n1", "f1n2", "f2n1", "f2n2"]),
    ("f[1-2]n[2],n01", ["f1n2", "f2n2", "n01"]),
    ("n1[9]", ["n19"]),
    ("rack[1,2]", n(6, 7, 8, 9, 10)),
    # plus
    ("n01+2", n(1, 2, 3)),
    ("n08+2", n(8, 9, 10)),
    ("n01+0", n(1)),
    ("f1n1+1", ["f1n1", "f1n2"]),
    ("x1.site+1", ["x1.site", "x2.site"]),
    # digits
    ("8", ["node8"]),
    ("8-10", ["node10", "node8", "node9"]),
    ("8+1", ["node8", "node9"]),
    # exclusions apply last, wherever they stand
    ("n01-n05,-n03", n(1, 2, 4, 5)),
    ("-n03,n01-n05", n(1, 2, 4, 5)),
    ("n01-n10,-n03-n05,n04", n(1, 2, 6, 7, 8, 9, 10)),
    ("rack2,-n[06-09]", n(10)),
    ("-n01", []),
    ("compute,-compute", []),
    # '@' binds tighter than ','
    ("compute@rack2", n(6, 7, 8, 9, 10)),
    ("n01,compute@rack2", n(1, 6, 7, 8, 9, 10)),
    ("compute@n01-n03@imaged", n(1, 2)),
    ("compute,-compute@rack2", n(1, 2, 3, 4, 5)),
    ("n01@", n(1)),
    ("@all", []),
    ("n01@n02", []),
    # parentheses are a range of their own
    ("(n01)", n(1)),
    ("(n01,n02,n07)@rack2", n(7)),
    ("rack2@(n06,n07)", n(6, 7)),
    ("(n01-n03,-n02),n02", n(1, 2, 3)),
    ("n01-n05,-(n02,n03)", n(1, 4, 5)),
    ("((n01,n02)@(n02,n03))", n(2)),
    ("compute@(rack2,-n10)", n(6, 7, 8, 9)),
    # regular expressions, anchored at both ends
    ("/n0[1-3]", n(1, 2, 3)),
    ("/n0", []),
    ("/n(01|02)", n(1, 2)),
    ("/f.n.", ["f1n1", "f1n2", "f2n1", "f2n2"]),
    ("/.*\\.site", ["x1.site", "x2.site"]),
    ("/n\\d{2}", [*n(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), "n19"]),
    ("compute,-/n0.", n(10)),
    # files
    ("^/srv/list", n(1, 3, 4, 5, 6, 7, 8, 9)),
    ("^/srv/minus", n(1, 2, 3)),
    ("compute,-^/srv/minus", n(4, 5, 6, 7, 8, 9, 10)),
    ("rack2@^/srv/list", n(6, 7, 8, 9)),
    ("^/no/such/file", []),
    # selections by a column
    ("nodetype.os==image", n(1, 2)),
    ("nodetype.os=image", n(1, 2)),
    ("compute@nodetype.os!=image", n(3, 4, 5, 6, 7, 8, 9, 10)),
    ("nodetype.profile=~golden", n(1, 2)),
    ("nodetype.profile=~/-2$/", n(2)),
    ("compute@nodetype.profile!~golden", n(3, 4, 5, 6, 7, 8, 9, 10)),
    ("nodetype.os==nothing", []),
    ("groups=~/rack2/", n(6, 7, 8, 9, 10)),
    ("tags==single", ["n19"]),
    ("mgt==ipmi", n(1, 2)),
    ("compute,-mgt=ipmi", n(3, 4, 5, 6, 7, 8, 9, 10)),
]


@pytest.mark.parametrize(("text", "nodes"), RULES, ids=[text or "empty" for text, _ in RULES])
def test_a_rule_of_the_grammar(text, nodes):
    assert expand(text, universe()) == nodes


MISSING = [
    ("a,b", "a,b"),
    ("n01,nope,n02,-gone", "nope,gone"),
    ("n[1-3]", "n1,n2,n3"),
    ("n09-n12", "n11,n12"),
    ("n05-n01", "n05-n01"),
    ("n01-x02", "n01-x02"),
    ("f1n1-f2n2", "f1n1-f2n2"),
    ("a-b-d", "a-b-d"),
    ("n01-", "n01-"),
    ("7", "node7"),
    ("n01@missing", "missing"),
    ("(n01,missing)", "missing"),
    ("nodetype.colour==red", "nodetype.colour==red"),
    ("compute,-colour==red", "colour==red"),
    ("x+2", "x+2"),
    ("n 01", "n 01"),
    ("[1-3]", "[1-3]"),
    ("missing,missing", "missing"),
]


@pytest.mark.parametrize(("text", "names"), MISSING)
def test_names_that_are_nothing_fail_the_whole_range_with_xcats_words(text, names):
    with pytest.raises(NotFoundError) as caught:
        expand(text, universe())
    assert str(caught.value) == f"Invalid nodes and/or groups in noderange: {names}"
    assert caught.value.code == "noderange"


@pytest.mark.parametrize(
    "text",
    [
        "(n01",
        "n01)",
        "n[01",
        "n01]",
        "(n[01)]",
        "n01@-n02",
        "compute,-^/no/such/file",
        "n[1-200000]",
        "n1-n200000",
        "n1+200000",
        "n[1-1000]x[1-1000]",
        "n1-n100000,m1-m100000",
        "(" * 200 + "n01" + ")" * 200,
        "x" * 2_000_000,
        "/" + "a" * 600,
        "/(?=n01)",
        "/(a)\\1",
        "/*a",
        "/a{2",
        "/a{3,2}",
        "/a{5000}",
        "/((((a{99}){99}){99}){99})",
        "/((((){999999}){999999}){999999})",
    ],
    ids=lambda text: text[:30],
)
def test_what_cannot_be_understood_or_is_too_large_is_refused_in_a_sentence(text):
    begun = Moment()
    with pytest.raises(UsageError) as caught:
        expand(text, universe())
    assert caught.value.code == "bad-noderange"
    assert len(str(caught.value)) < 400
    assert begun.took() < 5


def test_a_range_from_elsewhere_may_not_name_files():
    with pytest.raises(UsageError, match="may not name files"):
        expand("^/etc/passwd", universe(files=None))


def test_excluded_nodes_of_the_site_are_never_in_a_result():
    assert expand("n01-n04", universe(excluded="n02,rack1,not-there")) == n(1, 3, 4)
    assert expand("n02", universe(excluded="n02")) == []


def test_an_expression_that_would_run_for_ever_elsewhere_ends_at_once():
    nodes = {"a" * 120 + str(i): () for i in range(200)}
    begun = Moment()
    assert expand("/(a+)+b,/(a|a)*(a|a)*b,/.*.*.*.*.*.*.*.*x", Universe(nodes)) == []
    assert begun.took() < 2


def test_ten_thousand_nodes_are_expanded_in_a_quarter_of_a_second():
    nodes = {f"n{i:05}": ("all", f"rack{i // 40}") for i in range(10_000)}
    there = Universe(nodes)
    begun = Moment()
    assert len(expand("n00000-n09999,-/n0000.,-rack3", there)) == 10_000 - 10 - 40
    assert begun.took() < 1


def test_a_long_list_of_missing_names_is_cut():
    with pytest.raises(NotFoundError) as caught:
        expand("n[1000-9000]", universe())
    assert str(caught.value).endswith(",n1099,...")


@given(st.text(alphabet="n01-,@()[]/^+:=~!'x. ", max_size=40))
def test_no_text_makes_it_fail_otherwise_than_in_a_sentence(text):
    try:
        found = expand(text, universe())
    except LithoError:
        return
    assert found == sorted(set(found) & set(NODES))


@given(st.sets(st.sampled_from(sorted(NODES))), st.sets(st.sampled_from(sorted(NODES))))
def test_lists_intersections_and_exclusions_are_those_of_sets(left, right):
    one, two = ",".join(sorted(left)), ",".join(sorted(right))
    assert expand(f"({one}),({two})", universe()) == sorted(left | right)
    assert expand(f"({one})@({two})" if right else "", universe()) == (sorted(left & right) if right else [])
    assert expand(f"({one}),-({two})", universe()) == sorted(left - right)


# ---------------------------------------------------------------- names to define


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n01", ["n01"]),
        ("n01,n03", ["n01", "n03"]),
        ("n09-n11", ["n09", "n10", "n11"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[1-3],-n2", ["n1", "n3"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("n01+2", ["n01", "n02", "n03"]),
        ("rack-one", ["rack-one"]),
        ("7", ["node7"]),
    ],
)
def test_names_can_be_spelled_out_before_they_exist(text, names):
    assert literal(text) == names


@pytest.mark.parametrize(
    "text", ["/n.*", "^/srv/list", "a@b", "os==x", "n 01", "-x,_n", "ä", "x" * 200, "n[1-200000]", "(n01)"]
)
def test_only_names_can_be_spelled_out(text):
    with pytest.raises(UsageError):
        literal(text)


# ---------------------------------------------------------------- files on the caller's side


@pytest.mark.parametrize(
    "text", ["^/srv/list", "compute,-^/srv/minus", "rack2@^/srv/list", "(^/srv/minus,n09)", "/n0[1-3]", "/^n01"]
)
def test_a_range_with_its_files_inlined_means_the_same(text):
    sent = inline_files(text, Files(FILES))
    assert expand(sent, universe(files=None)) == expand(text, universe())


def test_a_file_that_cannot_be_read_is_told_to_the_person_who_named_it():
    with pytest.raises(UsageError, match="cannot read the file /no/such"):
        inline_files("n01,^/no/such", Files(FILES))


@pytest.mark.parametrize("line", ["n01),compute", "n01),compute,(n02", "n[01", ")("])
def test_a_line_cannot_break_out_of_its_parentheses(line):
    with pytest.raises(UsageError, match="does not close"):
        inline_files("compute,-^/evil", Files({"/evil": line + "\n"}))


def test_a_range_that_looks_at_too_many_nodes_is_refused():
    there = Universe({f"n{i:05}": ("all",) for i in range(10_000)})
    begun = Moment()
    with pytest.raises(UsageError, match="takes too long"):
        expand(",".join(["all"] * 5000), there)
    assert begun.took() < 3
