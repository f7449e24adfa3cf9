"""
Loading `live_profiles.json`: the limits of each ramp profile, and its policy where it has one.

Source: LIVE_MODE_GUIDE.md, Ramp Profiles; DESIGN.md section 1, Profile limits.
"""

import hashlib
import math
from pathlib import Path
from typing import Final

import msgspec

from domain.errors import BadInput
from domain.events import RampProfile
from domain.policy import Policy, overlay_mapping

PROFILES_PATH: Final = Path(__file__).with_name("live_profiles.json")
DEFAULT_PROFILE: Final = "A"


class ProfileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    One profile of the file.

    Attributes:
        description: for people.
        max_notional: USD over all symbols within the limit, above 0.
        max_symbols: how many symbols may trade, from the first on, at least 1.
        policy: what the profile changes of the default policy, as in a policy file.
    """

    description: str
    max_notional: float
    max_symbols: int
    policy: dict[str, object] = {}

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_notional) and self.max_notional > 0):
            raise ValueError(f"max_notional: expected more than 0, was {self.max_notional}")
        if self.max_symbols < 1:
            raise ValueError(f"max_symbols: expected at least 1, was {self.max_symbols}")


class Profiles(msgspec.Struct, frozen=True):
    """All profiles of one file, by name, and the SHA-256 of the file."""

    source: str
    hash: str
    entries: dict[str, ProfileEntry]

    def limits(self, name: str) -> RampProfile:
        """
        Return the limits of a profile.

        Raises:
            BadInput: if there is no such profile, naming those that there are.
        """
        entry = self._entry(name)
        return RampProfile(
            name=name, max_notional=entry.max_notional, max_symbols=entry.max_symbols
        )

    def policy(self, name: str, base: Policy) -> Policy:
        """Return the base policy with the profile's own part laid over it."""
        return overlay_mapping(
            base, self._entry(name).policy, source=f"{self.source}: {name}.policy"
        )

    def that_allow(self, symbols: int) -> list[str]:
        """Return the names of the profiles that let so many symbols trade."""
        return [name for name, entry in self.entries.items() if entry.max_symbols >= symbols]

    def _entry(self, name: str) -> ProfileEntry:
        if name not in self.entries:
            raise BadInput(
                f"--ramp-profile: unknown profile {name!r}; {self.source} has "
                f"{', '.join(self.entries)}"
            )
        return self.entries[name]


def load_profiles(path: Path = PROFILES_PATH) -> Profiles:
    """
    Return the profiles of a file, each of them checked, its policy too.

    Raises:
        BadInput: naming the file, the profile and the key.
    """
    try:
        data = path.read_bytes()
        raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except OSError as error:
        raise BadInput(f"{path}: can't be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: expected profiles as a JSON object: {error}") from None
    entries: dict[str, ProfileEntry] = {}
    for name, entry in raw.items():
        try:
            entries[name] = msgspec.json.decode(entry, type=ProfileEntry)
        except msgspec.MsgspecError as error:
            raise BadInput(f"{path}: profile {name}: {error}") from None
    if not entries:
        raise BadInput(f"{path}: expected at least one profile, was none")
    profiles = Profiles(path.name, hashlib.sha256(data).hexdigest(), entries)
    for name in entries:
        profiles.policy(name, Policy())
    return profiles
