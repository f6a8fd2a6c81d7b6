"""Profiles: those that come along are sound, one's own extend them, and a mistake is named by file and key."""

from pathlib import Path

import pytest

from profiles.aliases import alias, like
from profiles.errors import BadProfile, UnknownProfile
from profiles.memory import GIB
from profiles.profile_files import card, load_profile, profile_names


def test_those_that_come_along_are_sound() -> None:
    names = {
        "rtx-3090", "rtx-4090", "rtx-3060-12gb", "rtx-4060-ti-16gb", "rtx-5090", "2x3090", "2x4090",
        "cpu", "cpu-avx2-32gb", "cpu-avx512-64gb", "laptop-8gb-gpu", "apple-m-series",
    }  # fmt: skip
    assert set(profile_names()) == names
    for name in names:
        machine = load_profile(name).machine()
        assert machine.bytes_free > 16 * GIB
        assert all(gpu.bytes_free > 6 * GIB for gpu in machine.gpus)
    assert [gpu.name for gpu in load_profile("2x4090").machine().gpus] == ["CUDA0", "CUDA1"]


def test_a_card_is_known_by_its_drivers_name() -> None:
    known = card("NVIDIA GeForce RTX 4060 Ti")
    assert known is not None
    assert known.vram_gib == 16
    assert card("Voodoo 3") is None


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.toml").write_text(text)


def test_ones_own_profile_extends_and_replaces(tmp_path: Path) -> None:
    write(
        tmp_path,
        "mine",
        'extends = "rtx-4090"\nkv_types = ["q8_0"]\n[host]\nram_gib = 128\n[[gpu]]\nreserve_gib = 2',
    )
    mine, theirs = load_profile("mine", tmp_path), load_profile("rtx-4090")
    assert (mine.host.ram_gib, mine.host.cores, mine.kv_types) == (128, theirs.host.cores, ("q8_0",))
    assert (mine.gpus[0].reserve_gib, mine.gpus[0].vram_gib) == (2, 24)
    write(tmp_path, "rtx-4090", 'extends = "rtx-4090"\n[host]\ncores = 4')
    assert load_profile("rtx-4090", tmp_path).host.cores == 4
    assert profile_names(tmp_path)["rtx-4090"].endswith("rtx-4090.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("description = 'x", "is not TOML"),
        ("description = 'x'", "'host' is missing"),
        ("description = 'x'\ncolour = 1\n[host]\nram_gib = 1\ncores = 1", "'colour' is not a key"),
        ("description = 'x'\n[host]\ncores = 1", r"\[host\] 'ram_gib' is missing"),
        ("description = 'x'\n[host]\ncores = 1\nram_gib = 'much'", r"\[host\] 'ram_gib' is 'much'; it must be a number"),
        ("description = 'x'\n[host]\ncores = 1\nram_gib = true", "'ram_gib' is true"),
        ("description = 'x'\nkv_types = ['f17']\n[host]\ncores = 1\nram_gib = 1", "'kv_types' has 'f17'"),
        ("description = 'x'\nubatches = []\n[host]\ncores = 1\nram_gib = 1", "'ubatches' must be a non-empty list"),
        ("description = 'x'\nunified = 3\n[host]\ncores = 1\nram_gib = 1", "'unified' is 3"),
        ("description = 'x'\n[host]\ncores = 1\nram_gib = 1\n[[gpu]]\nmatch = 'x'", r"\[\[gpu\]\] 1 'vram_gib' is missing"),
        ("description = 'x'\n[host]\ncores = 1\nram_gib = 1\n[[gpu]]\nmatch = 'x'\nvram_gib = 1\nkind = 'npu'", "kind is 'npu'"),
        ("description = 'x'\n[host]\ncores = 1\nram_gib = 1\n[gpu]\nmatch = 'x'", r"written as \[\[gpu\]\]"),
        ("extends = 'nobody'", r"mine\.toml: 'extends' names .* not exist; profile 'nobody' not found"),
        ("description = 'x'\nkv_types = [['f16']]\n[host]\ncores = 1\nram_gib = 1", r"'kv_types' has \[\"f16\"\]"),
        ("description = 'x'\nn_ctx = 64.5\n[host]\ncores = 1\nram_gib = 1", "'n_ctx' is 64.5; it must be a whole number"),
        ("description = 'x'\n[host]\ncores = 0\nram_gib = 1", r"\[host\] 'cores' is 0; it must be a number from 1"),
        ("description = 'x'\n[host]\ncores = 1.5\nram_gib = 1", r"\[host\] 'cores' is 1.5; it must be a whole number"),
        ("extends = 7", "'extends' is 7"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_file_and_key(text: str, words: str, tmp_path: Path) -> None:
    write(tmp_path, "mine", text)
    with pytest.raises(BadProfile, match=words) as error:
        load_profile("mine", tmp_path)
    assert "mine.toml" in str(error.value) or "nobody" in text
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("[host]", "bandwidth_gbs"),
        ("[host]", "disk_gbs"),
        ("[host]", "channels"),
        ("[[gpu]]", "bandwidth_gbs"),
        ("[[gpu]]", "link_gbs"),
        ("[[gpu]]", "tflops"),
    ],
)
def test_a_rate_of_zero_is_named_and_not_divided_by(table: str, key: str, tmp_path: Path) -> None:
    under = "" if table == "[host]" else "[[gpu]]\nmatch = 'x'\nvram_gib = 1\n"
    write(tmp_path, "mine", f"{PLAIN}{under}{key} = 0\n")
    with pytest.raises(BadProfile, match=rf"mine\.toml: .*'{key}' is 0; it must be a number from"):
        load_profile("mine", tmp_path)


def test_more_cards_than_llama_cpp_computes_on_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "mine", PLAIN + "[[gpu]]\nmatch = 'x'\nvram_gib = 1\n" * 16)
    with pytest.raises(BadProfile, match=r"16 \[\[gpu\]\] tables; llama.cpp computes on at most 15"):
        load_profile("mine", tmp_path)


def test_what_is_no_file_is_no_profile(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "gone.toml").symlink_to(tmp_path / "nowhere")
    assert profile_names(tmp_path) == profile_names()


PLAIN = 'description = "x"\n[host]\nram_gib = 1\ncores = 1\n'


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (PLAIN.replace("x", "é").encode("latin-1"), r"mine\.toml is not UTF-8 \(byte 16 is 0xE9\); .*iconv -f latin1"),
        (PLAIN.encode("utf-16"), r"mine\.toml is UTF-16; .*iconv -f UTF-16"),
        (b"x = " + b"[" * 100_000, r"mine\.toml is not TOML"),
        (b"x = " + b"9" * 10_000, r"mine\.toml is not TOML"),
        (b"x = 2026-13-45", r"mine\.toml is not TOML"),
        (PLAIN.encode() + b"#" * (1 << 20), "larger than 1,048,576 bytes"),
    ],
)  # fmt: skip
def test_a_file_in_another_encoding_or_of_another_kind_is_named(
    raw: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_bytes(raw)
    with pytest.raises(BadProfile, match=words):
        load_profile("mine", tmp_path)


def test_a_byte_order_mark_and_line_ends_of_windows_are_read(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(PLAIN.replace("\n", "\r\n").encode("utf-8-sig"))
    assert load_profile("mine", tmp_path).host.cores == 1


def test_a_circle_is_seen(tmp_path: Path) -> None:
    write(tmp_path, "a", 'extends = "b"')
    write(tmp_path, "b", 'extends = "a"')
    with pytest.raises(BadProfile, match="circular"):
        load_profile("a", tmp_path)


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(BadProfile, match=r"profiles are auto, .*rtx-4090"):
        load_profile("rtx4080")


@pytest.mark.parametrize(
    ("typed", "profile"),
    [
        ("3090", "rtx-3090"),
        ("RTX4090", "rtx-4090"),
        ("nvidia-geforce-rtx-5090", "rtx-5090"),
        ("3060", "rtx-3060-12gb"),
        ("4060-ti", "rtx-4060-ti-16gb"),
        ("2xrtx3090", "2x3090"),
        ("dual-4090", "2x4090"),
        ("3090x2", "2x3090"),
        ("m3-max", "apple-m-series"),
        ("MacBook-Pro", "apple-m-series"),
        ("laptop", "laptop-8gb-gpu"),
        ("avx2", "cpu-avx2-32gb"),
        ("cpu-avx512", "cpu-avx512-64gb"),
    ],
)
def test_a_profile_has_the_names_that_people_type(typed: str, profile: str) -> None:
    assert alias(typed, profile_names()) == profile
    assert load_profile(typed).machine() == load_profile(profile).machine()


@pytest.mark.parametrize(
    "typed",
    ["4060", "4080", "3090-ti", "4090-laptop", "rtx-3060-8gb", "2x3080", "a100", "laptop-16gb-gpu", "rtx"],
)
def test_no_name_stands_for_another_machine(typed: str) -> None:
    assert alias(typed, profile_names()) is None
    assert like(typed, profile_names()) == [] or typed == "rtx"
    with pytest.raises(UnknownProfile):
        load_profile(typed)


@pytest.mark.parametrize(
    ("typed", "near"),
    [("409", ["rtx-4090"]), ("rtx-309", ["rtx-3090"]), ("2x409", ["2x4090"]), ("408", []), ("40", [])],
)
def test_a_number_may_lack_its_last_digit(typed: str, near: list[str]) -> None:
    assert alias(typed, profile_names()) is None
    assert like(typed, profile_names()) == near


def test_a_profile_of_ones_own_wins_over_an_alias(tmp_path: Path) -> None:
    (tmp_path / "rtx-3090.toml").write_text('extends = "rtx-3090"\n[host]\nram_gib = 128\n')
    assert load_profile("3090", tmp_path).host.ram_gib == 128
    (tmp_path / "3090.toml").write_text('extends = "4090"\n')
    assert load_profile("3090", tmp_path).gpus == load_profile("rtx-4090").gpus
