"""The token store: clips as tokens, made once by a tokenizer, read at random by everything that trains or evaluates.

A store is a folder of

    shard-00000.arrow    records and tokens of some clips, in their order (`datasets` opens them too)
    sources-00000.json   which recordings these were: path, size, times and SHA-256 of each file
    store.json           the list of the shards with their checksums, and of the clips that could not be read

A shard is written under another name, then renamed, then listed: whatever kills a build, at any moment, loses the
shard in work and nothing else. A clip is known by its id and by the content of its file; where that lies may change.
"""

from auditory_sentences.token_store.build import build_store
from auditory_sentences.token_store.joined import JoinedStores, open_stores
from auditory_sentences.token_store.manifest import MANIFEST, Failure
from auditory_sentences.token_store.shard import StoredClip
from auditory_sentences.token_store.store import TokenStore

__all__ = ["MANIFEST", "Failure", "JoinedStores", "StoredClip", "TokenStore", "build_store", "open_stores"]
