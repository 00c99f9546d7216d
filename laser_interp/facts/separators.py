"""What stands between a prompt and its answer: a space, nothing, or what the prompt's end and the answer ask for."""

import regex

from laser_interp.choices import Separator

# Scripts that set no spaces between words, with their punctuation and the full-width forms of others.
WITHOUT_SPACES = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\u3001-\u303f\uff01-\uff60]"
)
_OPENING = regex.compile(r"([\p{Ps}\p{Pi}#@¿¡]|(?<!\d\s*)\p{Sc})$")  # brackets, quotes that only open, #, @, $
_JOINING = regex.compile(r"[^\s=+/_\\\p{Pd}][=+/_\\\p{Pd}]+$")  # "2+2=", "and/", "1939-"; but not "2 + 2 ="
_MARKS = "\"'`*"  # open what follows a space, and close what follows a letter


def separator_of(prompt: str, answer: str = "", rule: Separator = "auto") -> str:
    """What is written between a prompt and its answer: " " or "".

    A rule of " " or "" is itself, but no second space is put beside one that is there. "auto" writes nothing

    - after an opening bracket or quote (a straight quote, a backtick or an asterisk opens where a space, a bracket or
      nothing stands before it), a currency sign, # or @;
    - after = + / _ \\ or a dash that has no space before it, as in "2+2=";
    - between two characters of scripts that set no spaces between words, such as Chinese, Japanese and Thai;

    and a space everywhere else.

    Args:
        answer: if it is not known, it counts as being of the prompt's script.

    Example:
        >>> separator_of("The answer is ("), separator_of("The answer is")
        ('', ' ')
    """
    if rule == "" or prompt[-1:].isspace() or answer[:1].isspace():
        return ""
    if rule == " ":
        return " "
    before_marks = prompt.rstrip(_MARKS)
    opens = before_marks != prompt and (not before_marks or before_marks[-1].isspace())
    if opens or _OPENING.search(before_marks) or _JOINING.search(prompt):
        return ""
    if WITHOUT_SPACES.match(prompt[-1:]) and WITHOUT_SPACES.match(answer[:1] or prompt[-1:]):
        return ""
    return " "
