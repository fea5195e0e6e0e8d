import pytest

from lorasweep.training.errors import SettingsError
from lorasweep.training.files.yaml_file import dump_yaml, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("5E-5", 5e-5), ("1.5e-3", 1.5e-3), (".5e2", 50.0), ("-2e3", -2000.0), ("1e+2", 100.0)],
)
def test_exponents_are_numbers(text, value):
    content = parse_yaml(f"a: {text}\nb: [{text}]", "x.yaml")
    assert content == {"a": value, "b": [value]}
    assert isinstance(content["a"], float)


@pytest.mark.parametrize("text", ["e4", "1e", "1e-4x", "'1e-4'", "v1e-4"])
def test_other_text_stays_text(text):
    assert parse_yaml(f"a: {text}", "x.yaml") == {"a": text.strip("'")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rank: {choice: [4, 8}\n", "x.yaml line 1: not valid YAML: "),
        ("rank: 4\n\talpha: 8\n", "x.yaml line 2: not valid YAML: "),
        (
            "rank: 4\nalpha: 8\nrank: 8\n",
            "x.yaml line 3: not valid YAML: rank stands twice (first on line 1)",
        ),
        ("rank: {int: [1, 2], int: [1, 3]}\n", "x.yaml line 1: not valid YAML: int stands twice"),
        ("rank: !!python/object/apply:os.getcwd []\n", "x.yaml line 1: not valid YAML: could not determine"),
        ("- rank\n- alpha\n", "x.yaml: holds a list; write one"),
        ("rank\n", "x.yaml: holds a str; write one"),
        ("", "x.yaml: holds nothing"),
        ("# only a comment\n", "x.yaml: holds nothing"),
        ("4: rank\n", "x.yaml: the key 4 is not a name"),
        ("rank: \x01\n", "x.yaml: not valid YAML: "),
        ("rank: 2024-13-45\n", "x.yaml: not valid YAML: month must be"),
        ("[a, b]: rank\n", "x.yaml line 1: not valid YAML: "),
    ],
)
def test_refused(text, message):
    with pytest.raises(SettingsError) as refusal:
        parse_yaml(text, "x.yaml")
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_merge_keys_may_repeat_names():
    text = "base: &base {rank: 4, alpha: 8}\nother: {<<: *base, rank: 8}\n"
    assert parse_yaml(text, "x.yaml")["other"] == {"rank": 8, "alpha": 8}


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.yaml: no such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match=r"cannot be read \(Is a directory\)"):
        read_yaml(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"rank: \xff\xfe")
    with pytest.raises(SettingsError, match=r"binary\.yaml: not UTF-8 text"):
        read_yaml(tmp_path / "binary.yaml")


def test_a_file_is_read(tmp_path):
    (tmp_path / "space.yaml").write_text("rank: 4\nabout: größer\n", encoding="utf-8")
    assert read_yaml(tmp_path / "space.yaml") == {"rank": 4, "about": "größer"}


def test_what_is_written_is_read_back():
    content = {
        "z": "1e-4",
        "a": 1e-4,
        "é": ["4", 4, None, True, "yes", "2e3", 2e300],
        "b": {"c": "line\nfeed"},
    }
    text = dump_yaml(content)
    assert parse_yaml(text, "x.yaml") == content
    assert list(parse_yaml(text, "x.yaml")) == ["z", "a", "é", "b"]
    assert "é" in text


def test_an_option_that_named_the_file_is_in_the_message(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1\na: 2\n")
    with pytest.raises(SettingsError) as refusal:
        read_yaml(tmp_path / "a.yaml", "--config")
    path = tmp_path / "a.yaml"
    assert str(refusal.value) == f"--config {path} line 2: not valid YAML: a stands twice (first on line 1)"
