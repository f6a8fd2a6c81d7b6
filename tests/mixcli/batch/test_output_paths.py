"""Where a batch writes: what would destroy something, or fail late, is refused before the first request; what fails in the middle resumes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mixcli.batch.output import json_line, output
from mixcli.batch.output_paths import check_targets, checked_review, part_of
from mixcli.errors import InUse, MixcliError, UsageError
from quantize.errors import QuantizeError
from quantize.output_target import output_target
from tests.conftest import Runner

SERVER = Path(__file__).with_name("quick_server.py")


@pytest.fixture
def url(home: Path) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, str(SERVER), "0.002"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.kill()
    process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with everything that an output can be by mistake."""
    (tmp_path / "in.txt").write_text("one ham\ntwo spam\n")
    (tmp_path / "link.txt").symlink_to("in.txt")
    os.link(tmp_path / "in.txt", tmp_path / "hard.txt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "thesis.part").write_text("years of work")
    (tmp_path / "pipe.part").symlink_to("in.txt")
    (tmp_path / "notes.md").write_text("# years of work\n")
    (tmp_path / "data.jsonl").write_text('{"id": 1, "text": "a result"}\n')
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        old = Path.cwd()
        os.chdir(tmp_path)
        try:
            sock.bind("socket")
        finally:
            os.chdir(old)
    return tmp_path


@pytest.mark.parametrize(
    ("out", "journal", "words"),
    [
        ("in.txt", None, "-o .*in.txt is an input"),
        ("link.txt", None, "is an input"),
        ("hard.txt", None, "is an input"),
        ("out", "in.txt", "--journal .*is an input"),
        ("out", "out", "--journal .*is also the output file"),
        ("out", "out.part", "is also the output file"),
        ("folder", None, "is a folder, and only a regular file"),
        ("socket", None, "is a socket, and only a regular file"),
        ("none/out", None, "the folder of .*none/out does not exist"),
        ("in.txt/out", None, "Not a directory"),
        ("dangling", None, "symlink to nowhere, which does not exist"),
        ("circle", None, "too many levels of symbolic links|Symlink loop|Too many levels"),
        ("out", "dangling", "symlink to nowhere"),
        ("out", "fifo", "is a pipe .FIFO., and only a regular file"),
        ("out", "/dev/null", "is a device, and only a regular file"),
        ("out", "none/journal", "the folder of .* does not exist"),
        ("thesis", None, "thesis.part holds other data"),
        ("notes.md", None, "notes.md exists and holds no results of mixcli batch; remove it"),
        ("data.jsonl", None, "holds no results"),
        ("/dev/zero/x", None, "Not a directory"),
        ("-", None, "results go to stdout without -o"),
        ("x" * 250, None, "too long"),
        ("pipe", None, "pipe.part is not a regular file"),
    ],
)
def test_what_would_be_lost_or_fail_is_refused(
    folder: Path, out: str, journal: str | None, words: str
) -> None:
    place = Path("-") if out == "-" else folder / out
    with pytest.raises((UsageError, QuantizeError), match=words):
        check_targets(str(folder / "in.txt"), place, folder / journal if journal else None)
    assert (folder / "in.txt").read_text().startswith("one")
    assert (folder / "thesis.part").read_text() == "years of work"


@pytest.mark.parametrize(
    ("review", "out", "journal", "words"),
    [
        ("out", "out", None, "is also the file of -o"),
        ("out.part", "out", None, "is also the file of -o"),
        ("out", "out.part", None, "is also the file of -o"),
        ("out", "x", "out.part", "is also the file of --journal"),
        ("in.txt", "out", None, "--review .*is an input"),
        ("thesis", "out", None, "thesis.part holds other data"),
    ],
)
def test_a_review_list_takes_no_other_files_place(
    folder: Path, review: str, out: str, journal: str | None, words: str
) -> None:
    with pytest.raises((UsageError, QuantizeError), match=words):
        checked_review(
            folder / review, str(folder / "in.txt"), folder / out, folder / journal if journal else None
        )


def test_a_review_list_that_is_the_input_stays(folder: Path) -> None:
    path = folder / "review.jsonl"
    path.write_text('{"id": 1, "doubt": 0.5, "abstained": {}, "record": {"text": "a"}}\n')
    with pytest.raises(UsageError, match="is an input and would be overwritten"):
        checked_review(path, str(path), folder / "out", None)


def test_two_batches_on_one_review_list_are_refused(folder: Path) -> None:
    with output(checked_review(folder / "review", str(folder / "in.txt"), None, None)) as write:
        write("{}\n")
        with pytest.raises(InUse, match=r"writing .*review.part"), output(folder / "review"):
            pass


def test_what_can_be_written_passes(folder: Path) -> None:
    (folder / "out.part").write_text('{"id": 1}\n{"id"')
    (folder / "empty.part").touch()
    lines = [
        {"id": 1, "lang": "de", "result": "ham"},
        {"id": "a", "error": {"message": "x"}},
        {"id": "batch_req_1", "custom_id": "a", "response": {}},
    ]
    for number, line in enumerate(lines):
        (folder / f"old{number}").write_text(json_line(line) * 2)
    (folder / "long").write_text('{"id": 1, "kept": "' + "x" * 100_000)
    for out in (
        "out",
        "new",
        "empty",
        "/dev/null",
        "fifo",
        "/dev/stdout",
        "/dev/fd/1",
        "old0",
        "old1",
        "old2",
        "long",
    ):
        check_targets(str(folder / "in.txt"), folder / out, folder / "journal")
    check_targets("-", None, None)


@pytest.mark.parametrize("name", ["link.txt", "dangling", "circle", "hard.txt", "new", "folder", "socket"])
def test_an_output_is_taken_where_convert_takes_it(folder: Path, name: str) -> None:
    (folder / "in.txt").write_text("")  # an empty file may be replaced by either

    def takes(check: Callable[[], object]) -> bool:
        try:
            check()
        except (UsageError, QuantizeError):
            return False
        return True

    assert takes(lambda: check_targets("-", folder / name, None)) == takes(
        lambda: output_target(folder / name)
    )
    if name == "link.txt":
        assert (
            output_target(folder / name)
            == Path(str(part_of(folder / name)).removesuffix(".part"))
            == folder / "in.txt"
        )


def test_an_output_behind_a_link_is_written_where_it_leads(folder: Path) -> None:
    (folder / "real").touch()
    (folder / "alias").symlink_to("real")
    with output(folder / "alias") as write:
        write("x\n")
        assert (folder / "real.part").exists()
    assert (folder / "alias").is_symlink()
    assert (folder / "real").read_text() == "x\n"


@pytest.mark.parametrize("harm", [Path.unlink, lambda part: os.truncate(part, 3)])
def test_an_output_that_another_program_changed_is_not_published(
    folder: Path, harm: Callable[[Path], object]
) -> None:
    def write_and_lose() -> None:
        with output(folder / "out") as write:
            write("x" * 100_000)
            harm(part_of(folder / "out"))
            write("y" * 100_000)

    with pytest.raises(MixcliError, match=r"out.part was changed or removed by another program"):
        write_and_lose()
    assert not (folder / "out").exists()


def test_two_batches_on_one_output_are_refused_also_with_other_journals(folder: Path) -> None:
    with output(folder / "out") as write:
        write("first\n")
        with pytest.raises(InUse, match="another mixcli batch"), output(folder / "out"):
            pass
    with output(folder / "out") as write:
        write("second\n")
    assert (folder / "out").read_text() == "second\n"


def test_nothing_is_asked_where_the_target_is_none(mixcli: Runner, folder: Path) -> None:
    """The address would be exit 6."""
    ask = ("--choice", "ham,spam", "--endpoint", "http://127.0.0.1:9", "-m", "m")
    done = mixcli("batch", str(folder / "in.txt"), "-o", str(folder / "in.txt"), *ask)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert (folder / "in.txt").read_text() == "one ham\ntwo spam\n"


def test_a_full_disk_in_the_middle_resumes(mixcli: Runner, url: str, folder: Path) -> None:
    source, out = folder / "many.txt", folder / "out.jsonl"
    source.write_text("".join(f"text {n} is {('ham', 'spam')[n % 2]}\n" for n in range(300)))
    arguments = [
        "batch",
        str(source),
        "-o",
        str(out),
        "--choice",
        "ham,spam",
        "--endpoint",
        url,
        "-m",
        "quick",
    ]
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000));"
        " sys.argv = ['mixcli', *sys.argv[1:]]; from mixcli.cli import main; main()"
    )
    full = subprocess.run(
        [sys.executable, "-B", "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert full.returncode in (1, 4)
    assert "Traceback" not in full.stderr
    assert "out.jsonl" in full.stderr
    assert not out.exists()
    done = mixcli(*arguments)
    assert done.returncode == 0, done.stderr
    assert "from an earlier run" in done.stderr
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == list(range(1, 301))


def test_an_interrupt_keeps_what_is_done(mixcli: Runner, url: str, folder: Path) -> None:
    source, out = folder / "many.txt", folder / "out.jsonl"
    source.write_text("".join(f"text {n} ham\n" for n in range(5000)))
    arguments = [
        "batch",
        str(source),
        "-o",
        str(out),
        "--choice",
        "ham,spam",
        "--endpoint",
        url,
        "-m",
        "quick",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "mixcli", *arguments], stderr=subprocess.PIPE, text=True
    )
    journal = folder / "out.jsonl.journal"
    deadline = time.monotonic() + 60
    while (
        not journal.exists() or journal.stat().st_size < 20_000
    ):  # the first records are among them, in whatever order
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (130, False)
    source.write_text("".join(source.read_text().splitlines(keepends=True)[:20]))
    done = mixcli(*arguments)
    assert (done.returncode, "20 from an earlier run" in done.stderr) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--prompt", "{{ text }} {{ lang }}", "-v", "lnag=French"],
            "the prompt has no {{ lnag }}; did you mean lang?",
        ),
        (["--prompt", "{{ subject }}", "--column", "body"], "--column body has no effect"),
        (["--keep", "result"], "--keep result"),
        (["--schema", "name: integr"], "did you mean integer?"),
        (["--choice", "'Smith, John','Doe, Jane'"], "plain double quotes"),
    ],
)
def test_options_that_would_do_nothing_or_something_else(
    mixcli: Runner, folder: Path, options: list[str], words: str
) -> None:
    done = mixcli("batch", str(folder / "in.txt"), "--endpoint", "http://127.0.0.1:9", "-m", "m", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--max-tokens", "5", "--prompt", "x {{ text }}"], "--prompt, --max-tokens"),
        (["--choice", "a,b", "--system", "x", "--seed", "1"], "--system, --choice, --seed"),
    ],
)
def test_options_that_an_openai_file_ignores(
    mixcli: Runner, folder: Path, options: list[str], named: str
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (folder / "requests.jsonl").write_text(json.dumps(line) + "\n")
    done = mixcli(
        "batch", str(folder / "requests.jsonl"), "--endpoint", "http://127.0.0.1:9", "-m", "m", *options
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"remove {named}" in done.stderr
