"""An exported folder put on the model hub, with a card whose lines load it from there."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lorasweep.training.errors import ExportError, SettingsError, first_line
from lorasweep.training.inference.folder import ADAPTER_CONFIG, MODEL_CONFIG, ONNX_FILE, OWN_ENTRY, read_json
from lorasweep.tuning.adapters.card.converted import CARD_FILE, read_card
from lorasweep.tuning.adapters.export.formats import FORMATS

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# An earlier push may have left another format, which would be loaded instead of the new files.
WEIGHTS = [pattern for form in FORMATS.values() for pattern in form.files]
CODE = re.compile(r"^```python\n.*?^```$", re.MULTILINE | re.DOTALL)


def check_upload(repo: str) -> str:
    """The repository's full name, once the hub has accepted the token; to be called before anything is exported.

    The token is the one that `hf auth login` has stored, or HF_TOKEN. It is never shown.

    Args:
        repo: `NAME` (under the token's own account) or `ACCOUNT/NAME`.

    Raises:
        SettingsError: not a name that the hub allows.
        ExportError: no token, one that the hub does not know, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    problem = _name_problem(repo)
    if problem is not None:
        raise SettingsError(
            f"--push-to-hub {repo!r}: not a repository's name ({problem}); give NAME or ACCOUNT/NAME"
        )
    if get_token() is None:
        raise ExportError(f"--push-to-hub {repo}: no token for the hub; run: hf auth login, or set HF_TOKEN")
    with _hub_errors(repo):
        account = HfApi().whoami()["name"]
    return repo if "/" in repo else f"{account}/{repo}"


def push_folder(folder: Path, repo: str, *, public: bool = False) -> str:
    """Upload an exported folder to a model repository, which is made if there is none.

    Two files are rewritten for the upload: the card's lines load the repository, and an adapter whose base model
    is a folder of this machine names the base model as the hub does.

    Args:
        folder: as an export has written it.
        repo: `ACCOUNT/NAME`.
        public: of a new repository; an existing one keeps its visibility.

    Returns:
        The repository's address.

    Raises:
        ExportError: no right to write, the hub cannot be reached or refuses, or a base model that only this
            machine has.
    """
    from huggingface_hub import HfApi

    with _portable(folder, repo) as content, _hub_errors(repo, folder):
        api: HfApi = HfApi()
        made = api.create_repo(repo, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=content,
            commit_message="Upload a classifier exported by lorasweep",
            delete_patterns=WEIGHTS,
        )
    return str(made)


def _name_problem(repo: str | None) -> str | None:
    """Why a text is no repository's name, or None where it is one."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        return first_line(error)
    return None


@contextmanager
def _hub_errors(repo: str, folder: Path | None = None) -> Iterator[None]:
    """Turn the hub's errors into one line, which says that `folder` is exported already."""
    from huggingface_hub.errors import HfHubHTTPError

    stays = f"; {folder} is complete, export to another --out to try again" if folder else ""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        said = _without_token(" ".join((error.server_message or first_line(error)).split())[:200])
        if status in (401, 403):
            raise ExportError(
                f"--push-to-hub {repo}: the hub does not let this token do that ({status}: {said}); run hf auth "
                f"login with a token that may write, or name a repository of your own{stays}"
            ) from error
        raise ExportError(f"--push-to-hub {repo}: the hub refuses ({status}: {said}){stays}") from error
    except Exception as error:
        said = _without_token(first_line(error))
        # The hub's clients have errors of their own for a network that is not there.
        if type(error).__module__.startswith("httpx") or isinstance(error, ConnectionError | TimeoutError):
            raise ExportError(
                f"--push-to-hub {repo}: the hub cannot be reached ({said}); check the network and try again{stays}"
            ) from error
        # The uploader of large files raises these for all that goes wrong.
        if isinstance(error, OSError | RuntimeError | ValueError):
            raise ExportError(f"--push-to-hub {repo}: the upload failed ({said}){stays}") from error
        raise


def _without_token(text: str) -> str:
    """A server's or a library's message, which might repeat the token."""
    from huggingface_hub import get_token

    token = get_token()
    return text.replace(token, "(token)") if token else text


@contextmanager
def _portable(folder: Path, repo: str) -> Iterator[Path]:
    """The folder's files; those that name things of this machine are rewritten."""
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        content = Path(temporary)
        for path in folder.iterdir():
            (content / path.name).symlink_to(path.resolve())  # weights may be large
        if (folder / ADAPTER_CONFIG).is_file():
            _rewrite(content / ADAPTER_CONFIG, _portable_adapter(folder))
        if (folder / CARD_FILE).is_file():
            _rewrite(content / CARD_FILE, _portable_card(folder, repo))
        yield content


def _rewrite(link: Path, text: str) -> None:
    link.unlink()
    link.write_text(text, encoding="utf-8")


def _portable_adapter(folder: Path) -> str:
    """adapter_config.json with the base model's name on the hub."""
    adapter = read_json(folder / ADAPTER_CONFIG)
    base = str(adapter.get("base_model_name_or_path") or "")
    if Path(base).is_absolute() or Path(base).is_dir():
        own = read_json(folder / MODEL_CONFIG).get(OWN_ENTRY)
        hub_id = own.get("base_hub_id") if isinstance(own, dict) else None
        if not isinstance(hub_id, str):
            raise ExportError(
                f"--push-to-hub: the base model of {folder} is a folder of this machine ({base}), which others "
                "do not have; export with --format merged and push that"
            )
        # A revision belongs to the place it was taken from.
        adapter |= {"base_model_name_or_path": hub_id, "revision": None}
    return json.dumps(adapter, indent=2, sort_keys=True) + "\n"


def _portable_card(folder: Path, repo: str) -> str:
    """The card with lines that load the repository, and without a base model that the hub cannot know."""
    here, there = (json.dumps(name, ensure_ascii=False) for name in (folder.name, repo))
    file = json.dumps(f"{folder.name}/{ONNX_FILE}", ensure_ascii=False)

    def code(block: re.Match[str]) -> str:
        lines = block[0]
        if file in lines:
            lines = lines.replace(
                "```python\n", "```python\nfrom huggingface_hub import snapshot_download\n", 1
            )
            lines = lines.replace(file, f'snapshot_download({there}) + "/{ONNX_FILE}"')
        return lines.replace(here, there)

    text = (folder / CARD_FILE).read_text(encoding="utf-8")
    card = read_card(text)
    if card is None:
        return text
    card.text = CODE.sub(code, card.text)
    base = card.data.get("base_model")
    # The hub refuses a card that names a folder.
    if not isinstance(base, str) or _name_problem(base) is not None or Path(base).is_dir():
        card.data.pop("base_model", None)
    return str(card)
