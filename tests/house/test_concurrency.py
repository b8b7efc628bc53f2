"""docs/concurrency.md has every thread and every lock of the code, and no other."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.house.concurrency import PAGE, differences, read
from tests.house.sources import PRODUCT
from tests.support import ROOT

CODE = textwrap.dedent(
    """
    import threading
    from concurrent.futures import ThreadPoolExecutor

    class Engine:
        def __init__(self):
            self._lock = threading.Lock()
            self._changed: threading.Condition = threading.Condition()
            self._pool = ThreadPoolExecutor(4, thread_name_prefix="receive")

        def start(self, n):
            threading.Thread(target=self.run, name="time").start()
            threading.Thread(target=self.run, name=f"work-{n}").start()

    class Stage(threading.Thread):
        def __init__(self):
            super().__init__(name="stage", daemon=True)
    """
)
LISTED = """
## Threads

| thread | started by |
|---|---|
| `time` | `Engine.start` |
| `work-…` | |
| `stage` | |
| `receive_…` | |

## Locks

| lock | guards |
|---|---|
| `Engine._lock` `Engine._changed` | |
"""


def test_code_and_page_agree() -> None:
    assert list(differences(PRODUCT, PAGE.read_text())) == []


def test_the_page_is_found_from_where_people_start() -> None:
    assert "](concurrency.md)" in (ROOT / "docs" / "architecture.md").read_text()
    assert "](docs/concurrency.md)" in (ROOT / "README.md").read_text()


def test_names_are_read_and_compared(tmp_path: Path) -> None:
    path = tmp_path / "engine.py"
    path.write_text(CODE)
    assert read(path).threads == {"time", "work-…", "receive_…", "stage"}
    assert read(path).locks == {"Engine._lock", "Engine._changed"}
    assert list(differences([path], LISTED)) == []
    short = LISTED.replace("| `time` | `Engine.start` |\n", "").replace(" `Engine._changed`", "")
    assert list(differences([path], short)) == [
        "engine.py: time is missing in Threads of docs/concurrency.md",
        "engine.py: Engine._changed is missing in Locks of docs/concurrency.md",
    ]
    path.write_text("")
    assert len(list(differences([path], LISTED))) == 6


def test_a_nameless_thread_and_a_loose_lock_are_found(tmp_path: Path) -> None:
    path = tmp_path / "loose.py"
    path.write_text(
        "import threading\n"
        "lock = threading.RLock()\n"
        "def start(run, name):\n"
        "    threading.Thread(target=run).start()\n"
        "    threading.Thread(target=run, name=name).start()\n"
        "    threading.Timer(1, run).start()\n"
        "class Named(threading.Thread):\n"
        "    def __init__(self):\n"
        "        super().__init__(daemon=True)\n"
        "class Silent(threading.Thread):\n"
        "    pass\n"
    )
    assert [problem.partition(": ")[0] for problem in read(path).problems] == [
        f"loose.py:{n}" for n in (2, 4, 5, 6, 9, 10)
    ]
