"""What programs were compiled against: changing it needs a line in the changelog; breaking them, a new soname."""

import os
import re
from pathlib import Path

from c_library import HERE, ROOT, Library

#: What is exported, and how structs lie in memory. DIGI_WRITE_ABI=1 writes it.
LIST = HERE / "abi.txt"


def exported(library: Library) -> list[str]:
    lines = library.run(["nm", "-D", "--defined-only", library.prefix / "lib/libdigi.so"]).splitlines()
    return sorted(line.split()[-1] for line in lines)


def declared() -> dict[str, str]:
    """The header's functions, each as one line."""
    header = (ROOT / "include/digi.h").read_text()
    code = re.sub(r"//.*", "", header)
    functions = re.findall(r"^([a-z][\w *]*?\b(digi_\w+)\([^;{]*?\));", code, re.MULTILINE)
    return {name: " ".join(text.split()) for text, name in functions}


def layouts(library: Library, folder: Path) -> list[str]:
    """Size of every struct, offset of every member."""
    header = (ROOT / "include/digi.h").read_text()
    prints = []
    for name, body in re.findall(r"^typedef struct (digi_\w+) \{\n(.*?)^\} \1;", header, re.DOTALL | re.MULTILINE):
        prints.append(f'printf("{name} %zu\\n", sizeof({name}));')
        code = re.sub(r"//.*", "", body)
        for declaration in code.split(";"):
            found = re.search(r"\(\*(\w+)\)\(|(\w+)\s*$", declaration.strip())
            if found:
                member = found[1] or found[2]
                prints.append(f'printf("{name}.{member} %zu\\n", offsetof({name}, {member}));')
    source = folder / "layouts.c"
    source.write_text(
        "#include <digi.h>\n#include <stdio.h>\nint main(void) {\n" + "\n".join(prints) + "\nreturn 0; }\n"
    )
    return library.run([library.compile("gcc", source, folder / "layouts")]).splitlines()


def test_the_library_exports_what_the_header_declares(library: Library) -> None:
    assert exported(library) == sorted(declared())


def test_the_abi_is_the_one_of_the_list(library: Library, tmp_path: Path) -> None:
    found = [*declared().values(), "", *layouts(library, tmp_path)]
    if os.environ.get("DIGI_WRITE_ABI"):
        LIST.write_text("\n".join(found) + "\n")
    assert LIST.read_text().splitlines() == found, "the ABI has changed: tests/c/abi.txt should be\n" + "\n".join(found)


def test_the_soname(library: Library) -> None:
    assert "[libdigi.so.0]" in library.run(["readelf", "-d", library.prefix / "lib/libdigi.so"])
