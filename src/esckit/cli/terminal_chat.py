"""``esckit chat``: talk with a supporter in the terminal. Heavy imports happen inside the command."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from esckit.cli import shared
from esckit.cli.chat_lines import drawn, note, short
from esckit.conversation import write_conversations
from esckit.errors import EsckitError, ModelError, TalkError
from esckit.quiet import quiet

if TYPE_CHECKING:
    from esckit.conversation import Conversation
    from esckit.supporters import Supporter
    from esckit.supporters.baselines import BaselineOptions
    from esckit.supporters.chat import Chat
    from esckit.supporters.own_model import OwnOptions
    from esckit.supporters.proposing import Answers

HELP: Final = """\
/strategy NAME  force the next reply's strategy: its name, its short form, or how its name begins; without NAME: list
/role NAME      who speaks from now on, of a supporter with roles; none: nobody in particular; without NAME: list
/other          another reply to what you said last, and go on from it
/go N           go on from turn N (0: from the beginning)
/tree           draw the conversation; * marks where you are
/save FILE      write the whole tree to a file
/continue       go on after a message has stopped the chat
/quit           leave
Anything else is what you say. A space before a slash makes it no command."""

_PAST: Final = ("predicted", "hidden")


def chat_command(
    supporter: Annotated[
        str | None,
        typer.Argument(
            help="A supporter's folder, or any model as it is (a folder, a LoRA folder, a Hub id, smollm2, "
            "remote:MODEL); without one, the embedded supporter."
        ),
    ] = None,
    past_strategies: Annotated[
        str | None,
        typer.Option(help="predicted or hidden; default: hidden from an encoder planner, else as it was trained."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of sampled replies.")] = 0,
    save: Annotated[Path | None, typer.Option(help="Write the tree to this file after every turn.")] = None,
    open_: Annotated[
        Path | None, typer.Option("--open", help="Go on with a chat that was saved; it is written to its file again.")
    ] = None,
    language: shared.LanguageOption = None,
    model: Annotated[
        str | None,
        typer.Option(help="Instead of a supporter: a model that is prompted, with the whole dialogue in its prompt."),
    ] = None,
    planner: shared.PlannerOption = None,
    system: shared.SystemOption = None,
    strategy_form: shared.FormOption = None,
    base: shared.BaseOption = None,
    base_url: shared.BaseUrlOption = None,
    extra_body: shared.ExtraBodyOption = None,
    method: Annotated[
        str | None, typer.Option(help="Of --model: how it is prompted (esckit baseline); default base.")
    ] = None,
    role: shared.RoleOption = None,
    max_new_tokens: shared.NewTokensOption = None,
    trust_remote_code: shared.TrustOption = False,
) -> None:
    """Talk with a supporter, see which strategy it chose, and try other replies.

    Example: esckit chat runs/starter/decoupled --save chat.jsonl
    """
    told = locals()
    asked = shared.chat_options(told)
    if save is not None and open_ is not None:
        raise EsckitError("--open goes on in the chat's own file: leave --save out, or /save FILE in the chat.")
    if save is not None:
        _check_new(save)
    saved = None if open_ is None else _saved(open_)
    past, spoken = _past(past_strategies), _language(language, saved)
    _take_any_bytes()
    quiet()
    from esckit.decoding import Decoding
    from esckit.supporters.chat import Chat

    try:
        with _loaded(asked, spoken) as (loaded, name):
            how = Decoding() if max_new_tokens is None else Decoding(max_new_tokens=max_new_tokens)
            chat = Chat(loaded, name, past=past, seed=seed, opened=saved, wording=how, role=role, language=spoken)
            _Terminal(chat, save or open_).run()
    except KeyboardInterrupt:  # while it was loaded or made; later ones the chat takes itself
        print("\nesckit: stopped before the chat began; the same command starts again.", file=sys.stderr)
        sys.exit(130)


def _past(past: str | None) -> Any:
    if past is not None and past not in _PAST:
        known = f"use {' or '.join(_PAST)}"
        raise EsckitError(f"--past-strategies {past!r} is unknown in a chat, which has no gold ones: {known}.")
    return past


def _language(language: str | None, saved: "Conversation | None") -> str:
    if language is not None and saved is not None:
        raise EsckitError("a saved chat has its language: leave --language out.")
    if language not in (None, "en", "zh"):
        raise EsckitError(f"--language {language!r} is unknown in a chat: use en or zh.")
    return saved.language if saved else language or "en"


def _take_any_bytes() -> None:
    """Bytes that are no text must not end a chat."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextmanager
def _loaded(options: "BaselineOptions | OwnOptions | None", language: str) -> "Iterator[tuple[Answers, str]]":
    """Whoever answers, and its name."""
    if options is None:
        yield _embedded(), "embedded"
        return
    from esckit.chat_models.ledger import Ledger
    from esckit.chat_models.opening import chat_model_name
    from esckit.corpora.starter import starter_in
    from esckit.supporters.own_model import OwnOptions, open_named

    if isinstance(options, OwnOptions):
        with Ledger(Path(":memory:")) as ledger:
            yield open_named(options.in_language(language), ledger), chat_model_name(str(options.model))
        return
    from esckit.supporters.open_model import open_model
    from esckit.supporters.prompted import PromptedSupporter

    answering = open_model(options)
    with Ledger(Path(":memory:")) as ledger:  # nothing of a chat is on the disk unless it is saved
        supporter = PromptedSupporter(answering, ledger, options, examples=lambda: starter_in(language).train)
        yield supporter, chat_model_name(str(options.model))


def _embedded() -> "Supporter":
    from esckit.cache import cache_folder
    from esckit.supporters import Supporter
    from esckit.supporters.embedded import RANKER, embedded_supporter
    from esckit.supporters.reranked import ranked_by, why_not_ranked

    said = f"Making the embedded supporter, once, in {cache_folder()}; it takes a minute or two."
    made = embedded_supporter(lambda: print(said, file=sys.stderr))
    try:
        supporter = Supporter.load(made)
    except ModelError as error:
        raise ModelError(f"{made} is damaged: remove that folder, and it is made again.") from error
    if (reason := why_not_ranked(RANKER)) is None:
        return ranked_by(supporter, RANKER)
    print(f"The nearest reply is taken, not the one that a language model would choose: {reason}", file=sys.stderr)
    return supporter


def _saved(path: Path) -> "Conversation":
    """The chat that a file holds."""
    from esckit.conversation import read_conversations

    chats = read_conversations(path)
    if len(chats) != 1:
        raise TalkError(f"{path} holds {len(chats)} conversations and no chat: open a file that a chat has written.")
    return chats[0]


def _check_new(path: Path) -> None:
    """Refuse to write over what someone else wrote."""
    try:
        exists = path.exists()
    except OSError as error:
        raise TalkError(f"{path.name[:80]!r} cannot be a file ({error.strerror}): give another name.") from error
    if exists:
        raise TalkError(f"{path} exists already: give the name of a new file.")


class _Terminal:
    """Reads lines, carries them out, prints."""

    def __init__(self, chat: "Chat", save: Path | None) -> None:
        self.chat = chat
        self.save = save
        self.own: set[Path] = set()  # files of this chat, which it may write again
        self.saved = len(chat.conversation.turns)  # in the file written last; what was opened is in its own
        if self.saved and save:
            self.own.add(save)
        self.file: Path | None = None
        self.leaving = False

    def run(self) -> None:
        if sys.stdin.isatty():
            with suppress(ImportError):  # editing keys, and lines of more than 4,096 bytes; Windows has its own
                import readline  # noqa: F401
        print(f"{self.chat.statement}\n{self.chat.supporter.about}")
        print(f"Supporter: {self.chat.name}; past strategies {self.chat.past}. /help shows the commands, /quit leaves.")
        if self.chat.at is not None:
            self._go(self.chat.at)
        while not self._turn():
            pass
        if self.file:
            print(f"The chat is in {self.file} ({self.saved} turns).")

    def _turn(self) -> bool:
        """Read one line and carry it out; True where the chat is over."""
        line = _read("\nyou> ")
        if line is None or _command(line) == "/quit":
            return self._leave()
        self.leaving = False
        try:
            self._carry_out(line)
        except KeyboardInterrupt:
            print("\nStopped. /other answers your last words again; or say something, or /quit.")
        except EsckitError as error:
            print(error)
        return False

    def _leave(self) -> bool:
        """Leave where nothing is lost by it, or where it is asked for a second time."""
        unsaved = len(self.chat.conversation.turns) - self.saved
        if self.leaving or not unsaved:
            return True
        self.leaving = True
        turns = "1 turn is" if unsaved == 1 else f"{unsaved} turns are"
        print(f"{turns} not saved: /save FILE keeps the chat, /quit (or the same key) again leaves.")
        return False

    def _carry_out(self, line: str) -> None:
        from esckit.safety import risk_of

        command, rest = _command(line), line.partition(" ")[2]
        if command is None or (command != "/save" and risk_of(line)):  # "/help me, I want to die" asks for no commands
            self._say(line)
        elif command == "/strategy":
            self._strategy(rest)
        elif command == "/role":
            self._role(rest.strip())
        elif command == "/other":
            self._reply()
        elif command == "/go":
            self._go(rest.strip())
        elif command == "/tree":
            self._tree()
        elif command == "/save":
            self._save_as(rest.strip())
        elif command == "/continue":
            self._go_on(rest.strip())
        elif command == "/help":
            print(HELP)
        else:
            raise TalkError(f"there is no command {command[:40]!r}: /help shows them, a space before it says it.")

    def _say(self, line: str) -> None:
        before = self.chat.at
        if not line.strip():
            return
        said = self.chat.say(line)
        self._autosave()
        try:
            self._reply()
        except EsckitError as error:
            self.chat.at = before
            stands = f"you are back at turn {before or 0}, and your words stay in the tree as turn {said.id}."
            raise TalkError(f"no reply came: {error}\n{stands}") from error

    def _go_on(self, words: str) -> None:
        """Say to go on, in plain words, so that whoever reads the saved chat understands them; a model answers."""
        if self.chat.stopped is None:
            raise TalkError("nothing has stopped the chat: say something.")
        self._say(words or self.chat.stopped.words_to_go_on)

    def _reply(self) -> None:
        from esckit.supporters.chat import printable

        begun, who = False, "esckit" if self.chat.stopped else self.chat.name

        def show(piece: str) -> None:
            nonlocal begun
            print(printable(piece if begun else f"{who}> {piece}"), end="", flush=True)
            begun = True

        try:
            answer = self.chat.reply(show)
        except (MemoryError, RuntimeError) as error:  # torch's, such as no memory: the tree must outlive it
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TalkError(f"the model failed ({reason}): say less, or go on from an earlier turn.") from error
        finally:
            if begun:
                print()
        print(note(answer, self._name))
        self._autosave()

    def _strategy(self, name: str) -> None:
        if name.strip():
            print(f"The next reply's strategy is {self._name(self.chat.force(name))}.")
            return
        taxonomy, language = self.chat.supporter.taxonomy, self.chat.conversation.language
        for label, abbreviation in taxonomy.abbreviations.items():
            print(f"{abbreviation:<4} {self._name(label)}: {taxonomy.definition_in(label, language)}")

    def _name(self, label: str) -> str:
        """A strategy as it is shown in the chat's language; other words stay."""
        return self.chat.supporter.taxonomy.shown_in(label, self.chat.conversation.language)

    def _role(self, name: str) -> None:
        if name:
            print(f"From now on speaks: {self.chat.take_role(name)}.")
            return
        for role, title in self.chat.supporter.roles.items():
            print(f"{role:<12} {title}")
        if not self.chat.supporter.roles:
            print("This supporter has no roles.")

    def _go(self, number: str) -> None:
        self.chat.go(number)
        if self.chat.at is None:
            print("You are at the beginning.")
            return
        turn = self.chat.conversation.turn(self.chat.at)
        who = "you" if turn.speaker == "seeker" else "esckit" if "danger" in turn.extra else self.chat.name
        print(f"You go on after turn {turn.id}, {who}: {short(turn.text or '', 60)}")
        if stop := self.chat.stopped:
            print(stop._replace(latest=stop.latest or "").text)

    def _tree(self) -> None:
        if not self.chat.conversation.turns:
            raise TalkError("nothing has been said yet: there is no tree to draw.")
        labels = self.chat.supporter.taxonomy.abbreviations
        for branch in self.chat.branches():
            print(drawn(branch, labels))

    def _save_as(self, name: str) -> None:
        if not name:
            raise TalkError("/save needs the name of a file: /save chat.jsonl.")
        if not self.chat.conversation.turns:
            raise TalkError("nothing has been said yet: there is nothing to save.")
        try:
            path = Path(name).expanduser()
        except RuntimeError as error:
            raise TalkError(f"{name[:80]!r} names no home folder: give another name.") from error
        self._write(path)
        print(f"{self.saved} turns written to {path}; esckit corpus stats reads it.")

    def _write(self, path: Path) -> None:
        if path not in self.own:
            _check_new(path)
        write_conversations(path, [self.chat.conversation])
        self.own.add(path)
        self.file = path
        self.saved = len(self.chat.conversation.turns)

    def _autosave(self) -> None:
        if self.save is not None:
            try:
                self._write(self.save)
            except EsckitError as error:  # the chat goes on; what was not written is written with the next turn
                print(f"not saved: {error}")


def _read(prompt: str) -> str | None:
    """A line; None at the end of the input, and for Ctrl-C."""
    from esckit.supporters.chat import printable

    try:
        return printable(input(prompt))
    except (EOFError, KeyboardInterrupt):
        print()
        return None


def _command(line: str) -> str | None:
    """The command that a line begins with, if it is one."""
    return line.split(maxsplit=1)[0].lower() if line.startswith("/") else None
