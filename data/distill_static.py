"""Distil MiniLM's token vectors into the matrix that the package ships: `models/text/minilm_static.safetensors`.

    python data/distill_static.py

Encodes each of the 30 522 tokens by itself, in float32. Prints the file's sha256, which `models/text/static.py` demands.
"""

from __future__ import annotations

import sys

from ultrafast_rag import Config
from ultrafast_rag.models.text.encoder import open_text_encoder
from ultrafast_rag.models.text.static import PACKAGED, PACKAGED_OF, distill, encoded_vocabulary, write


def main() -> None:
    """Make the file again; the same weights give the same bytes but for the last bits of the engine's arithmetic."""
    encoder = open_text_encoder(Config(engine="torch-f32"))
    if encoder.space.rpartition("@")[2] != PACKAGED_OF:
        sys.exit(f"{encoder.space} is not the model that the package ships a matrix for")
    digest = write(distill(encoded_vocabulary(encoder)), PACKAGED)
    sys.stdout.write(f"{PACKAGED.name}: {PACKAGED.stat().st_size} bytes, sha256 {digest}\n")


if __name__ == "__main__":
    main()
