"""Texts of the page's tests."""

DOCUMENT = "The council of town 7 met on Monday and voted to close the school. Nobody was heard. It rains. The end."
ATTACK = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;${1}{{2}}"
