/* Texts of the program's own: of a literal, and of what ends with NUL (NULL: none). */
#define DIGI_TEXT(literal) {(literal), sizeof(literal) - 1}
static inline digi_text digi_text_of(const char *string) {
  digi_text text = {string, string ? strlen(string) : 0};
  return text;
}
