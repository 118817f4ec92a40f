"""Classes whose objects come filled, from a constructor or a factory, and never bare from ``__new__``."""

cdef extern from *:
    """
    /* Cython makes objects through tp_new; what Python finds under the name is another thing, and goes alone. Without
       it the lookup ends at object.__new__, which refuses any type that is not laid out as object is. */
    static int mcp_take_new(PyTypeObject *type) {
        if (PyDict_DelItemString(type->tp_dict, "__new__") < 0) return -1;
        PyType_Modified(type);
        return 0;
    }
    """
    int seal "mcp_take_new"(type sealed) except -1
