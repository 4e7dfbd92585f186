/* Who this model is, for those who ask over a serial line. `edgekit export` writes the package's own. */
#ifndef EK_IDENTITY_H
#define EK_IDENTITY_H

/* name@version */
#ifndef EK_MODEL_REF
#define EK_MODEL_REF "unnamed@0"
#endif

#ifndef EK_VARIANT
#define EK_VARIANT ""
#endif

/* The variant's digest: 64 hexadecimal digits, or empty when it is not known. */
#ifndef EK_VARIANT_DIGEST
#define EK_VARIANT_DIGEST ""
#endif

#endif
