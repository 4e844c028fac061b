"""Command line: demo, doctor, ingest, migrate, search, query, serve, mcp, bench, export, restore, completion.

Each command prints for people, or with --json for programs. Errors end in one line on stderr that says
what to do. Exit code 2: asked wrongly (unknown option, impossible setting or filter). 1: it failed, or
nothing that was to be ingested could be; a report of which a part failed exits with 0, because the
rest is in the index. `doctor --repair`: 0 when all is whole now, 3 when documents must be ingested again, 1 when there
is nothing left to mend.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, ExtractionError, IndexStateError, StorageError, UltraFastRAGError
from ultrafast_rag.index.repair import Repair
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import MODALITIES, Answer, Facts, Hits, IngestReport, Table, visible


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names that are not UTF-8
            stream.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    try:
        result = arguments.run(arguments)
        if result is not None:
            print(json.dumps(_plain(result), indent=1, ensure_ascii=False) if arguments.json else str(result))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read along, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (UltraFastRAGError, OSError) as error:
        print(visible(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("interrupted; what was committed is safe, the same command resumes there", file=sys.stderr)
        return 130
    if isinstance(result, Repair):
        return 1 if not result.whole else 3 if result.again else 0
    return 1 if isinstance(result, IngestReport) and _read_nothing(result) else 0


def _read_nothing(report: IngestReport) -> bool:
    return bool(report.failed) and not report.documents and not report.unchanged


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ultrafast_rag", description="Ask your documents, with evidence.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = _command(commands, "demo", _demo, "ingest the samples and ask across them, offline")
    demo.add_argument("--samples", type=Path, default=None, help="folder of samples (default: data/samples)")
    demo.set_defaults(index=None)  # a temporary one, unless --index names it

    doctor = _command(commands, "doctor", _doctor, "what this machine offers, what was chosen and why, what is missing")
    doctor.add_argument("--repair", action="store_true", help="instead: check every sum of --index and mend what can be mended")

    ingest = _command(commands, "ingest", _ingest, "read files, folders and https addresses into the index")
    ingest.add_argument("sources", nargs="+", help="files, folders and https addresses")
    ingest.add_argument("--time-budget", type=float, metavar="SECONDS", help="stop in good order; run again to go on")
    ingest.add_argument("--no-wait", action="store_true", help="with --set encode=progressive: do not wait until all is refined")

    migrate = _command(commands, "migrate", _migrate, "move the index to another text model; run again to go on")
    migrate.add_argument("text_model", help="a hub id, a folder, or a service's: openai:MODEL, gemini:MODEL")
    migrate.add_argument("--to", action="append", default=[], metavar="NAME=VALUE", help="more of it, e.g. --to text_dim=256")
    migrate.add_argument("--time-budget", type=float, metavar="SECONDS", help="stop in good order; run again to go on")

    for name, run, text in (("search", _search, "the best passages"), ("query", _query, "an answer with citations")):
        ask = _command(commands, name, run, f"{text} for a question")
        ask.add_argument("question", help="in words")
        ask.add_argument("-k", type=int, help="how many passages to find")
        ask.add_argument("--alpha", type=float, help="0: words only, 1: meaning only")
        ask.add_argument("--modality", action="append", help="text, table, image, audio or video; may be repeated")
        ask.add_argument("--source", help="only from this file (name, path or glob)")
        ask.add_argument(
            "--filter", action="append", default=[], metavar="NAME=VALUE", help="a field or metadata; may be repeated"
        )

    serve = _command(commands, "serve", _serve, "answer over HTTP; keys in UFR_API_KEYS, without one this machine only")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; another needs a key")
    serve.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    serve.add_argument("--root", type=Path, action="append", default=[], help="a folder /ingest may read; may be repeated")
    serve.add_argument("--uploads", type=Path, metavar="DIR", help="where uploads are kept (default: beside the index)")
    serve.add_argument("--rate", type=float, default=20.0, help="requests a second for each key")
    serve.add_argument("--burst", type=int, default=40, help="requests at once for each key")
    serve.add_argument("--body-mb", type=float, default=64.0, help="largest request")
    serve.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="longest question")

    _command(commands, "mcp", _mcp, "tools for an agent, over standard input and output (Model Context Protocol)")

    bench = _command(commands, "bench", _bench, "measure this machine; 'bench list' names the tables")
    bench.add_argument("rest", nargs=argparse.REMAINDER, help="table and its options")

    export = _command(commands, "export", _export, "write the index to one .tar file")
    export.add_argument("archive", type=Path, nargs="?", help="the .tar to write")
    export.add_argument("--offline-pack", type=Path, metavar="DIR", help="instead: what a session without network needs")

    restore = _command(commands, "restore", _restore, "unpack an index archive into --index")
    restore.add_argument("archive", type=Path, help="the .tar to read")

    completion = commands.add_parser("completion", help="what makes a shell complete the command ultrafast-rag")
    completion.description = 'For a shell\'s start-up file, e.g. ~/.bashrc: eval "$(ultrafast-rag completion bash)"'
    completion.add_argument("shell", choices=("bash", "zsh"))
    completion.set_defaults(run=_completion, json=False, commands=commands.choices)
    return parser


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    parser.add_argument("--index", type=Path, default=Path("my_index"), metavar="DIR", help="index folder (default: my_index)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, e.g. --set ocr_language=deu; may be repeated"
    )
    return parser


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; a value that reads as JSON is taken as that, any other as text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise ConfigError(f"--set and --filter take NAME=VALUE, not {pair!r}")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def _open(arguments: argparse.Namespace, *, must_exist: bool = True) -> UltraFastRAG:
    if must_exist and not arguments.index.exists():
        raise IndexStateError(f"there is no index in {arguments.index}; make one with the ingest command, or name another")
    return UltraFastRAG(arguments.index, **_settings(arguments.set))


def _doctor(arguments: argparse.Namespace) -> Table | Repair:
    if arguments.repair:
        return UltraFastRAG.repair(arguments.index)
    if arguments.index.exists():
        with _open(arguments) as rag:
            return rag.doctor()
    with UltraFastRAG(**_settings(arguments.set)) as rag:
        return rag.doctor()


def _ingest(arguments: argparse.Namespace) -> IngestReport:
    with _open(arguments, must_exist=False) as rag:
        start = time.monotonic()
        report = rag.ingest(*arguments.sources, time_budget_s=arguments.time_budget)
        if rag.config.encode != "progressive" or arguments.no_wait:
            return report
        left = None if arguments.time_budget is None else max(0.0, arguments.time_budget - (time.monotonic() - start))
        return dataclasses.replace(report, refined=rag.refine(time_budget_s=left))


def _migrate(arguments: argparse.Namespace) -> Facts:
    with _open(arguments) as rag:
        settings = {"text_model": arguments.text_model, **_settings(arguments.to)}
        moved = rag.migrate(time_budget_s=arguments.time_budget, **settings)
        return Facts({"moved": moved, "text model": rag.config.text_model})


def _asked(arguments: argparse.Namespace) -> dict[str, Any]:
    options = {"k": arguments.k, "alpha": arguments.alpha, "modality": arguments.modality}
    filters = {**_settings(arguments.filter), **({"source": arguments.source} if arguments.source else {})}
    return {**{name: value for name, value in options.items() if value is not None}, "filters": filters or None}


def _search(arguments: argparse.Namespace) -> Hits:
    with _open(arguments) as rag:
        return rag.search(arguments.question, **_asked(arguments))


def _query(arguments: argparse.Namespace) -> Answer:
    with _open(arguments) as rag:
        return rag.query(arguments.question, **_asked(arguments))


def _serve(arguments: argparse.Namespace) -> None:
    from ultrafast_rag.serve import http, messages

    serving = messages.Serving(
        host=arguments.host,
        port=arguments.port,
        keys=messages.keys_from_environment(),
        roots=arguments.root,
        uploads=arguments.uploads,
        rate_per_s=arguments.rate,
        burst=arguments.burst,
        body_mb=arguments.body_mb,
        timeout_s=arguments.timeout,
    )
    settings = {"quiet": True, **_settings(arguments.set)}
    with UltraFastRAG(arguments.index, **settings) as rag:
        http.serve(rag, serving, index=arguments.index, say=lambda text: print(text, file=sys.stderr, flush=True))


def _mcp(arguments: argparse.Namespace) -> None:
    from ultrafast_rag.serve import mcp

    settings = {**_settings(arguments.set), "quiet": True}  # standard output is the protocol's
    if not arguments.index.exists():
        raise IndexStateError(f"there is no index in {arguments.index}; make one with the ingest command, or name another")
    with UltraFastRAG(arguments.index, **settings) as rag:
        mcp.serve(rag)


def _export(arguments: argparse.Namespace) -> str:
    if arguments.offline_pack is not None:
        from ultrafast_rag.notebook.platform import offline_pack

        return f"wrote {offline_pack(arguments.offline_pack, Config().replace(**_settings(arguments.set)))}"
    if arguments.archive is None:
        raise ConfigError("name the .tar to write, or give --offline-pack DIR")
    with _open(arguments) as rag:
        return f"wrote {rag.export(arguments.archive)}"


def _restore(arguments: argparse.Namespace) -> str:
    if not arguments.archive.is_file():
        raise StorageError(f"there is no file {arguments.archive}; name the .tar that the export command wrote")
    with UltraFastRAG.restore(arguments.archive, arguments.index, **_settings(arguments.set)) as rag:
        return f"restored {rag!r}"


_COMPLETION = """_ultrafast_rag() {
  local word=${COMP_WORDS[COMP_CWORD]} words=
  case ${COMP_WORDS[COMP_CWORD-1]} in
    --set) words="%(settings)s"; compopt -o nospace 2>/dev/null;;
    --modality) words="%(kinds)s";;
    bench) words="list %(benchmarks)s";;
    *) if [ "$COMP_CWORD" = 1 ]; then words="%(commands)s"; else
      case $word in -*) case ${COMP_WORDS[1]} in
%(options)s
      esac;; esac
    fi;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _ultrafast_rag ultrafast-rag"""  # with no word of ours: files


def _completion(arguments: argparse.Namespace) -> str:
    """A function of bash, which zsh can read: commands, their options, settings, benchmarks; else files."""
    from ultrafast_rag.bench import COMMANDS

    options = {name: re.findall(r"--[\w-]+", made.format_help()) for name, made in arguments.commands.items()}
    script = _COMPLETION % {
        "settings": " ".join(f"{field.name}=" for field in dataclasses.fields(Config)),
        "kinds": " ".join(MODALITIES),
        "benchmarks": " ".join(COMMANDS),
        "commands": " ".join(options),
        "options": "\n".join(f'        {name}) words="{" ".join(sorted(set(found)))}";;' for name, found in options.items()),
    }
    return ("autoload -U +X bashcompinit && bashcompinit\n" if arguments.shell == "zsh" else "") + script


def _bench(arguments: argparse.Namespace) -> None:
    from ultrafast_rag.bench import run

    run([*arguments.rest, *(["--json"] if arguments.json else [])])


def _demo(arguments: argparse.Namespace) -> dict[str, Any] | None:
    samples = arguments.samples or _samples()
    if arguments.index is not None:
        return _show(arguments, samples, arguments.index)
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-demo-") as folder:
        return _show(arguments, samples, Path(folder, "index"))


def _show(arguments: argparse.Namespace, samples: Path, index: Path) -> dict[str, Any] | None:
    """Ingest and ask, printed as it goes, or with --json given back."""
    start, quiet = time.perf_counter(), arguments.json

    def say(text: object) -> None:
        if not quiet:
            print(text, flush=True)

    settings = {"quiet": quiet, **_demo_models(samples), **_settings(arguments.set)}
    with UltraFastRAG(index, **settings) as rag:
        say(f"Ingesting {samples} ...")
        report = rag.ingest(samples)
        if _read_nothing(report):
            raise ExtractionError("; ".join(f"{source}: {why}" for source, why in report.failed[:5]))
        say(f"{report}\n")
        answers = []
        for question in _demo_questions(samples):
            answers.append(rag.query(question))
            say(f"Q: {question}\n{answers[-1]}\n")
        models = rag.stats()["models"]
        for name, fingerprint in models.items():
            say(f"{name} model: {fingerprint}")
    seconds = time.perf_counter() - start
    say(f"All in {seconds:.1f} s, nothing left this machine.")
    return {"report": report, "answers": answers, "models": models, "seconds": seconds} if quiet else None


def _samples() -> Path:
    """The samples of a checkout: beside the package, or below the current folder."""
    for folder in (Path("data/samples"), Path(__file__).resolve().parents[1] / "data/samples"):
        if folder.is_dir():
            return folder
    raise ConfigError("data/samples is not here; run this in a checkout, or name a folder of documents: demo --samples DIR")


def _demo_models(samples: Path) -> dict[str, str]:
    """The small checkpoints trained for this demo, where the checkout has them; they say in their config that they are demos."""
    models = samples.parent / "models"
    named = {"image_model": models / "demo-clip", "speech_model": models / "demo-whisper"}
    return {name: str(path) for name, path in named.items() if path.is_dir()}


def _demo_questions(samples: Path) -> list[str]:
    """The labelled questions that are marked for the demo; none for a folder of the user's own."""
    try:
        listed = json.loads((samples.parent / "questions.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [row["question"] for row in listed if row.get("demo")]


def _plain(value: Any) -> Any:
    """JSON values of a result; NaN becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
